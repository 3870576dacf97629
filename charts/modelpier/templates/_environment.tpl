{{/* What the values become for the operator. */}}
{{- define "modelpier.environment" -}}
{{- $proxy := dict }}
{{- range $variable, $value := dict "HTTP_PROXY" .Values.server.proxy.httpProxy "HTTPS_PROXY" .Values.server.proxy.httpsProxy "NO_PROXY" .Values.server.proxy.noProxy }}
{{- if $value }}{{ $_ := set $proxy $variable $value }}{{ end }}
{{- end -}}
- name: MODELPIER_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
- name: MODELPIER_POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: MODELPIER_SERVER_IMAGE
  value: {{ include "modelpier.image" (list $ .Values.server.image) }}
- name: MODELPIER_SERVER_IMAGE_GPU
  value: {{ include "modelpier.image" (list $ .Values.server.gpuImage) }}
- name: MODELPIER_IMAGE_PULL_POLICY
  value: {{ .Values.image.pullPolicy }}
- name: MODELPIER_IMAGE_PULL_SECRETS
  value: {{ join "," .Values.server.imagePullSecrets | quote }}
- name: MODELPIER_WATCH_NAMESPACES
  value: {{ uniq (.Values.watchNamespaces | default list) | join "," | quote }}
- name: MODELPIER_ALLOW_POD_OVERRIDES
  value: {{ .Values.allowPodOverrides | quote }}
- name: MODELPIER_CLUSTER_DOMAIN
  value: {{ .Values.clusterDomain | quote }}
- name: MODELPIER_PROXY_ENV
  value: {{ toJson $proxy | quote }}
- name: MODELPIER_CA_CONFIG_MAP
  value: {{ .Values.server.caConfigMap | quote }}
- name: MODELPIER_PLAN_KEY_SECRET
  value: {{ include "modelpier.operator" . }}-plan-key
- name: MODELPIER_LEASE_NAME
  value: {{ include "modelpier.operator" . }}
- name: MODELPIER_LEASE_DURATION
  value: {{ .Values.operator.leaderElection.leaseDuration | quote }}
- name: MODELPIER_RENEW_DEADLINE
  value: {{ .Values.operator.leaderElection.renewDeadline | quote }}
- name: MODELPIER_RETRY_PERIOD
  value: {{ .Values.operator.leaderElection.retryPeriod | quote }}
- name: MODELPIER_WORKERS
  value: {{ .Values.operator.workers | quote }}
- name: MODELPIER_LOG_LEVEL
  value: {{ .Values.operator.logLevel }}
- name: MODELPIER_HTTP_PORT
  value: "8080"
{{- end -}}

{{/* Kubernetes lets the later of two variables with one name win, and other tools refuse them. */}}
{{- define "modelpier.refuseSetTwice" -}}
{{- $own := list -}}
{{- range include "modelpier.environment" . | fromYamlArray -}}
{{- $own = append $own .name -}}
{{- end -}}
{{- $seen := list -}}
{{- range .Values.operator.env -}}
{{- if has .name $own -}}
{{- fail (printf "operator.env: %s is set by the chart itself: leave it out, and set the value that decides it" .name) -}}
{{- end -}}
{{- if has .name $seen -}}
{{- fail (printf "operator.env: %s is there twice" .name) -}}
{{- end -}}
{{- $seen = append $seen .name -}}
{{- end -}}
{{- end -}}
