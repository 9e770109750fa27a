{{/* Where traces go as long as Redis does not say; empty for the agent's own default, which the quickstart's Jaeger is
in only where the namespace is called clovisor. */}}
{{- define "clovisor.traces" -}}
{{- if .Values.traces -}}
{{ .Values.traces }}
{{- else if and .Values.quickstart.enabled (ne .Release.Namespace "clovisor") -}}
jaeger-collector.{{ .Release.Namespace }}:4317
{{- end -}}
{{- end -}}
