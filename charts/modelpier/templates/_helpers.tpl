{{/* A release may have dots in its name and a digit before all; a Service, whose name begins with this one, may not. */}}
{{- define "modelpier.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := printf "%s-%s" .Release.Name $name -}}
{{- if .Values.fullnameOverride -}}
{{- $full = .Values.fullnameOverride -}}
{{- else if contains $name .Release.Name -}}
{{- $full = .Release.Name -}}
{{- end -}}
{{- if not (regexMatch "^[a-z]" $full) -}}
{{- fail (printf "fullnameOverride: must be set, since the release's name %s begins with no letter, and a Service's has to" .Release.Name) -}}
{{- end -}}
{{- $full | replace "." "-" | trunc 40 | trimSuffix "-" -}}
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

{{- define "modelpier.ownLabels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "modelpier.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: operator
app.kubernetes.io/part-of: modelpier
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "modelpier.labels" -}}
{{- include "modelpier.ownLabels" . }}
{{- include "modelpier.refuseOwnLabels" (list . "commonLabels" .Values.commonLabels) }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Selectors and Helm itself go by the chart's own labels. Takes (list $ "name.of.the.value" .Values.name.of.the.value). */}}
{{- define "modelpier.refuseOwnLabels" -}}
{{- $own := include "modelpier.ownLabels" (index . 0) | fromYaml -}}
{{- $field := index . 1 -}}
{{- range $label, $_ := index . 2 -}}
{{- if hasKey $own $label -}}
{{- fail (printf "%s: %s is set by the chart itself: choose another label" $field $label) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Of the operator's pods; their own labels win over those of all objects. */}}
{{- define "modelpier.podLabels" -}}
{{- include "modelpier.refuseOwnLabels" (list . "operator.podLabels" .Values.operator.podLabels) -}}
{{- merge (dict) (.Values.operator.podLabels | default dict) (include "modelpier.labels" . | fromYaml) | toYaml -}}
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
  resources: [pods]
  verbs: [list, watch]
- apiGroups: [""]
  resources: [events]
  verbs: [list, watch, create]
{{- end -}}
