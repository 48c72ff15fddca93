{{- define "task-service.labels" -}}
app.kubernetes.io/name: task-service
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
