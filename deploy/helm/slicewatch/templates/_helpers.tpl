{{- define "slicewatch.name" -}}
{{- .Values.fullnameOverride | default .Release.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- /* The rules and alerts depend on the job "slicewatch", which is the value of this first label. */}}
{{- define "slicewatch.selector" -}}
app.kubernetes.io/name: slicewatch
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "slicewatch.labels" -}}
{{ include "slicewatch.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "slicewatch.metadata" -}}
name: {{ include "slicewatch.name" . }}
namespace: {{ .Release.Namespace }}
labels:
  {{- include "slicewatch.labels" . | nindent 2 }}
{{- end }}

{{- define "slicewatch.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "slicewatch.claim" -}}
{{ .Values.persistence.existingClaim | default (printf "%s-data" (include "slicewatch.name" .)) }}
{{- end }}

{{- define "slicewatch.container" -}}
image: {{ include "slicewatch.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext: {{- include "slicewatch.confined" . | nindent 2 }}
env: {{- include "slicewatch.environment" . | nindent 2 }}
resources: {{- toYaml .Values.resources | nindent 2 }}
volumeMounts:
  - {name: project, mountPath: /project, readOnly: true}
  - {name: data, mountPath: /data}
  - {name: tmp, mountPath: /tmp}
  {{- if .Values.keys.secret }}
  - {name: keys, mountPath: /keys, readOnly: true}
  {{- end }}
{{- end }}

{{- define "slicewatch.confined" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "slicewatch.environment" -}}
{{- $name := include "slicewatch.name" . }}
{{- $domain := printf "%s.%s" $name .Release.Namespace }}
{{- $hosts := list $name $domain (printf "%s.svc" $domain) (printf "%s.svc.cluster.local" $domain) "$(POD_IP)" -}}
# Probes and Prometheus use the address of the Pod.
- name: POD_IP
  valueFrom:
    fieldRef:
      fieldPath: status.podIP
- name: SLICEWATCH_SERVE_HOSTS
  value: {{ concat $hosts .Values.hosts | toJson | quote }}
- name: SLICEWATCH_SERVE_DRAIN_SECONDS
  value: {{ .Values.drainSeconds | quote }}
{{- if .Values.keys.secret }}
- name: SLICEWATCH_SERVE_KEYS
  value: /keys/keys.json
{{- else }}
- name: SLICEWATCH_SERVE_INSECURE
  value: "true"
- name: SLICEWATCH_SERVE_WITHOUT_KEYS
  value: "true"
{{- end }}
{{- range $name, $value := .Values.environment }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}
