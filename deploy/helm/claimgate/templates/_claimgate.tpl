{{/*
Name of the ConfigMap.
*/}}
{{- define "claimgate.configName" -}}
{{ printf "%s-claimgate" .Release.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/*
The configuration: `claimgate.config` of the values, or the file `claimgate.toml` of the chart.
*/}}
{{- define "claimgate.toml" -}}
{{ .Values.claimgate.config | default (.Files.Get "claimgate.toml") | required "claimgate has no configuration: write claimgate.toml at the top of your chart, or set claimgate.config" }}
{{- end }}

{{/*
ConfigMap with the configuration.
*/}}
{{- define "claimgate.config" -}}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ include "claimgate.configName" . }}
  labels:
    app.kubernetes.io/name: claimgate
    app.kubernetes.io/instance: {{ .Release.Name }}
    app.kubernetes.io/managed-by: {{ .Release.Service }}
data:
  config.toml: |
    {{- include "claimgate.toml" . | nindent 4 }}
{{- end }}

{{/*
Annotation of the pod: a changed configuration rolls the pods. Without it, each gate reloads the file by itself.
*/}}
{{- define "claimgate.annotations" -}}
checksum/claimgate: {{ include "claimgate.toml" . | sha256sum }}
{{- end }}

{{/*
The gate as an item of `initContainers`; with `native: false`, of `containers`. Equal to
deploy/kubernetes/component/sidecar.yaml.
*/}}
{{- define "claimgate.container" -}}
{{- if and .Values.claimgate.native (semverCompare "<1.29.0-0" .Capabilities.KubeVersion.Version) }}
{{- fail (printf "claimgate.native needs Kubernetes 1.29 or newer, this cluster has %s: set it to false" .Capabilities.KubeVersion.Version) }}
{{- end }}
{{- with .Values.claimgate -}}
- name: claimgate
  image: "{{ .image.repository }}{{ if .image.digest }}@{{ .image.digest }}{{ else }}:{{ .image.tag }}{{ end }}"
  imagePullPolicy: {{ .image.pullPolicy }}
  {{- if .native }}
  restartPolicy: Always
  {{- end }}
  args: [run, --config, /etc/claimgate/config.toml]
  {{- with .env }}
  env:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  ports:
    - name: http
      containerPort: {{ .port }}
      protocol: TCP
    - name: admin
      containerPort: {{ .adminPort }}
      protocol: TCP
  startupProbe:
    httpGet:
      path: /startupz
      port: admin
    periodSeconds: 1
    timeoutSeconds: 1
    failureThreshold: 60
  readinessProbe:
    httpGet:
      path: /readyz
      port: admin
    periodSeconds: 5
    timeoutSeconds: 1
    failureThreshold: 2
  livenessProbe:
    httpGet:
      path: /livez
      port: admin
    periodSeconds: 10
    timeoutSeconds: 2
    failureThreshold: 3
  lifecycle:
    # A command, because any client of the admin port could send an httpGet. The gate accepts it on loopback alone.
    preStop:
      exec:
        command: [/claimgate, drain, --admin, "127.0.0.1:{{ .adminPort }}"{{ if not .native }}, --wait, 10s{{ end }}]
  resources:
    {{- toYaml .resources | nindent 4 }}
  securityContext:
    allowPrivilegeEscalation: false
    privileged: false
    readOnlyRootFilesystem: true
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    capabilities:
      drop: [ALL]
    seccompProfile:
      type: RuntimeDefault
  terminationMessagePolicy: {{ .terminationMessagePolicy }}
  volumeMounts:
    # Folders, not subPath: a subPath mount does not follow changes of its ConfigMap or Secret.
    - name: claimgate-config
      mountPath: /etc/claimgate
      readOnly: true
    - name: claimgate-secret
      mountPath: /etc/claimgate-secret
      readOnly: true
    {{- with .volumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}
{{- end }}

{{/*
Items of `volumes`. The pod needs `securityContext.fsGroup`, so that the gate can read its Secret.
*/}}
{{- define "claimgate.volumes" -}}
- name: claimgate-config
  configMap:
    name: {{ include "claimgate.configName" . }}
    defaultMode: 0444
- name: claimgate-secret
  secret:
    secretName: {{ .Values.claimgate.secretName }}
    optional: true
    defaultMode: 0440
{{- end }}

{{/*
`lifecycle` of the app, which must run until the cluster sends no more requests to the pod. With `native: false` it must
outlast the gate's own hook, and its image must have a `sleep`.
*/}}
{{- define "claimgate.appLifecycle" -}}
preStop:
  {{- if .Values.claimgate.native }}
  sleep:
    seconds: 10
  {{- else }}
  exec:
    command: [sleep, "15"]
  {{- end }}
{{- end }}

{{/*
`readinessProbe` of the app through the gate, because the kubelet cannot reach loopback. The path of the upstream's
`health_check` must be /health; for another path, write the probe yourself.
*/}}
{{- define "claimgate.appReadinessProbe" -}}
httpGet:
  path: /upstream/health
  port: {{ .Values.claimgate.adminPort }}
periodSeconds: 5
timeoutSeconds: 2
failureThreshold: 2
{{- end }}
