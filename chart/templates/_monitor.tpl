{{/* Metadata of an object for monitoring, which may be in another namespace. Called with (dict "root" . "values" …). */}}
{{- define "dormouse.monitoringMetadata" -}}
name: {{ include "dormouse.fullname" .root }}
namespace: {{ default .root.Release.Namespace .values.namespace }}
labels:
  {{- include "dormouse.labels" (dict "root" .root "labels" .values.labels) | nindent 2 }}
{{- with include "dormouse.annotations" (dict "root" .root "more" .values.annotations) }}
{{ . }}
{{- end }}
{{- end -}}

{{/* Whom to scrape, and how. Called with (dict "root" . "values" …). */}}
{{- define "dormouse.monitorSpec" -}}
namespaceSelector:
  matchNames: [{{ .root.Release.Namespace }}]
selector:
  matchLabels:
    {{- include "dormouse.selectorLabels" (dict "root" .root) | nindent 4 }}
{{ .endpoints }}:
  - port: admin
    path: /metrics
    interval: {{ .values.interval }}
    scrapeTimeout: {{ .values.scrapeTimeout }}
    {{- with .values.relabelings }}
    relabelings:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with .values.metricRelabelings }}
    metricRelabelings:
      {{- toYaml . | nindent 6 }}
    {{- end }}
{{- end -}}
