{{- define "modelpier.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "modelpier.operator" -}}
{{- include "modelpier.fullname" . }}-operator
{{- end -}}

{{- define "modelpier.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "modelpier.operator" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name: must be set when serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* The NetworkPolicy of every ModelDeployment admits the operator by this name, whatever the release is called. */}}
{{- define "modelpier.selectorLabels" -}}
app.kubernetes.io/name: modelpier-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "modelpier.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "modelpier.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: operator
app.kubernetes.io/part-of: modelpier
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Reference of one image; takes (list $ .Values.x.image). */}}
{{- define "modelpier.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- $missing := "image.registry: say where the images are that `make images REGISTRY=...` has pushed, as in --set image.registry=registry.example.com/team" -}}
{{- trimSuffix "/" (required $missing $root.Values.image.registry) }}/
{{- $image.repository }}:{{ default $root.Chart.AppVersion $image.tag -}}
{{- with $image.digest }}@{{ . }}{{ end -}}
{{- end -}}

{{/* What the operator does with ModelDeployments and what belongs to them: in the whole cluster, or in each listed namespace. */}}
{{- define "modelpier.rules" -}}
- apiGroups: [modelpier.dev]
  resources: [modeldeployments]
  verbs: [get, list, watch]
- apiGroups: [modelpier.dev]
  resources: [modeldeployments/status]
  verbs: [patch]
# Asked for where the admission plugin OwnerReferencesPermissionEnforcement runs: children block the deletion of their owner.
- apiGroups: [modelpier.dev]
  resources: [modeldeployments/finalizers]
  verbs: [update]
- apiGroups: [apps]
  resources: [deployments, controllerrevisions]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [configmaps, services, serviceaccounts]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [apps]
  resources: [replicasets]
  verbs: [list, watch]
- apiGroups: [""]
  resources: [pods, events]
  verbs: [list, watch]
{{- end -}}
