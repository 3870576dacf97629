package main

import (
	"maps"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
)

const (
	httpPort  = 8080
	grpcPort  = 8081
	adminPort = 8082

	livePath  = "/v2/health/live"
	readyPath = "/v2/health/ready"

	planDir        = "/etc/modelpier/plan"
	modelDir       = "/var/lib/modelpier/models"
	credentialsDir = "/etc/modelpier/credentials"
	pvcDir         = "/mnt/modelpier/pvc"
	terminationLog = "/dev/termination-log"

	user         = 65532
	tmpMebibytes = 64
	logMebibytes = 192
	// graceSeconds is the time to go on accepting (5), for gRPC clients to go elsewhere (22.5) and a reserve, beside the
	// time to drain.
	graceSeconds = 33
)

// frozen is the pod template without what names its pod set: its hash is the pod set's.
func (m *Maker) frozen(md *ModelDeployment) corev1.PodTemplateSpec {
	labels := map[string]string{labelManagedBy: managedBy, labelName: app, labelDeployment: md.Name}
	return corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: m.podSpec(md)}
}

// template is the frozen one, told which pod set it is of and where its plan lies.
func (m *Maker) template(md *ModelDeployment, names Names) corev1.PodTemplateSpec {
	template := m.frozen(md)
	template.Labels[labelPodSet] = names.podSet
	template.Labels[labelPodSetHash] = names.podSetHash
	template.Spec.Volumes[0].ConfigMap.Name = names.plan
	server := &template.Spec.Containers[0]
	server.Env = append(server.Env, corev1.EnvVar{Name: "MODELPIER_POD_SET", Value: names.podSet})
	return template
}

func (m *Maker) podSpec(md *ModelDeployment) corev1.PodSpec {
	spec := md.Spec
	account, token := capped(md.Name, "server", nameLimit), ptr.To(false)
	if own := spec.Server.ServiceAccountName; own != "" {
		account, token = own, nil
	}
	return corev1.PodSpec{
		ServiceAccountName:            account,
		AutomountServiceAccountToken:  token,
		EnableServiceLinks:            ptr.To(false),
		TerminationGracePeriodSeconds: ptr.To(int64(graceSeconds + drainLimit(md))),
		ImagePullSecrets:              pullSecrets(spec.Server.ImagePullSecrets),
		NodeSelector:                  spec.Resources.NodeSelector,
		Tolerations:                   spec.Resources.Tolerations,
		PriorityClassName:             spec.Resources.PriorityClassName,
		RuntimeClassName:              spec.Resources.RuntimeClassName,
		TopologySpreadConstraints: []corev1.TopologySpreadConstraint{
			spread(md, "kubernetes.io/hostname"), spread(md, "topology.kubernetes.io/zone"),
		},
		SecurityContext: &corev1.PodSecurityContext{
			RunAsNonRoot:   ptr.To(true),
			RunAsUser:      ptr.To(int64(user)),
			RunAsGroup:     ptr.To(int64(user)),
			FSGroup:        ptr.To(int64(user)),
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		},
		Containers: []corev1.Container{m.container(md)},
		Volumes:    volumes(md),
	}
}

func pullSecrets(names []string) []corev1.LocalObjectReference {
	var references []corev1.LocalObjectReference
	for _, name := range names {
		references = append(references, corev1.LocalObjectReference{Name: name})
	}
	return references
}

func (m *Maker) container(md *ModelDeployment) corev1.Container {
	image := md.Spec.Server.Image
	if image == "" {
		image = m.image
	}
	return corev1.Container{
		Name:            "server",
		Image:           image,
		ImagePullPolicy: corev1.PullIfNotPresent,
		Ports: []corev1.ContainerPort{
			{Name: "http", ContainerPort: httpPort, Protocol: corev1.ProtocolTCP},
			{Name: "grpc", ContainerPort: grpcPort, Protocol: corev1.ProtocolTCP},
			{Name: "admin", ContainerPort: adminPort, Protocol: corev1.ProtocolTCP},
		},
		Env:                      m.environment(md),
		Resources:                requirements(md.Spec.Resources),
		StartupProbe:             probe(readyPath, 1, 2, md.Spec.Server.StartupTimeoutSeconds),
		ReadinessProbe:           probe(readyPath, 2, 2, 2),
		LivenessProbe:            probe(livePath, 10, 5, 3),
		VolumeMounts:             mounts(md),
		TerminationMessagePath:   terminationLog,
		TerminationMessagePolicy: corev1.TerminationMessageReadFile,
		SecurityContext: &corev1.SecurityContext{
			AllowPrivilegeEscalation: ptr.To(false),
			ReadOnlyRootFilesystem:   ptr.To(true),
			Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		},
	}
}

func (m *Maker) environment(md *ModelDeployment) []corev1.EnvVar {
	return []corev1.EnvVar{
		{Name: "MODELPIER_PLAN_FILE", Value: planDir + "/" + planKeyInConfigMap},
		{Name: "MODELPIER_PLAN_PUBLIC_KEY", Value: m.publicKey},
		{Name: "MODELPIER_OWNER_UID", Value: string(md.UID)},
		{Name: "MODELPIER_MODEL_DIR", Value: modelDir},
		{Name: "MODELPIER_MODEL_STORAGE", Value: strconv.FormatInt(md.Spec.Resources.ModelStorage.Value(), 10)},
		{Name: "MODELPIER_CREDENTIALS_DIR", Value: credentialsDir},
		{Name: "MODELPIER_PVC_DIR", Value: pvcDir},
		{Name: "MODELPIER_DRAIN_LIMIT", Value: strconv.Itoa(drainLimit(md))},
		{Name: "MODELPIER_TERMINATION_LOG", Value: terminationLog},
	}
}

// drainLimit is what requests in flight get at a pod's end, in seconds.
func drainLimit(md *ModelDeployment) int {
	return max(30, md.Spec.Server.Limits.RequestTimeoutSeconds)
}

// probe names every default with a value: semantic comparison would take a zero for a difference.
func probe(path string, period, timeout, failures int32) *corev1.Probe {
	get := &corev1.HTTPGetAction{Path: path, Port: intstr.FromString("http"), Scheme: corev1.URISchemeHTTP}
	return &corev1.Probe{
		ProbeHandler:     corev1.ProbeHandler{HTTPGet: get},
		PeriodSeconds:    period,
		TimeoutSeconds:   timeout,
		SuccessThreshold: 1,
		FailureThreshold: failures,
	}
}

// requirements: memory and disk are not overcommitted. The disk holds the models, /tmp and the container's log.
func requirements(resources Resources) corev1.ResourceRequirements {
	disk := resources.ModelStorage.DeepCopy()
	disk.Add(*resource.NewQuantity((tmpMebibytes+logMebibytes)<<20, resource.BinarySI))
	limits := corev1.ResourceList{corev1.ResourceMemory: resources.Memory, corev1.ResourceEphemeralStorage: disk}
	if resources.GPU > 0 {
		limits[corev1.ResourceName(resources.GPUResource)] = *resource.NewQuantity(resources.GPU, resource.DecimalSI)
	}
	requests := maps.Clone(limits)
	requests[corev1.ResourceCPU] = resources.CPU
	if resources.CPULimit != nil {
		limits[corev1.ResourceCPU] = *resources.CPULimit
	}
	return corev1.ResourceRequirements{Requests: requests, Limits: limits}
}

// spread is within a pod set: the pods of a set that is about to go must not push new ones aside.
func spread(md *ModelDeployment, key string) corev1.TopologySpreadConstraint {
	return corev1.TopologySpreadConstraint{
		MaxSkew:           1,
		TopologyKey:       key,
		WhenUnsatisfiable: corev1.ScheduleAnyway,
		LabelSelector:     &metav1.LabelSelector{MatchLabels: map[string]string{labelDeployment: md.Name}},
		MatchLabelKeys:    []string{labelPodSet},
	}
}

// volumes begins with the plan, whose ConfigMap is no part of the frozen template.
func volumes(md *ModelDeployment) []corev1.Volume {
	list := []corev1.Volume{
		{Name: "plan", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{}}},
		{Name: "models", VolumeSource: emptyDir(md.Spec.Resources.ModelStorage)},
		{Name: "tmp", VolumeSource: emptyDir(*resource.NewQuantity(tmpMebibytes<<20, resource.BinarySI))},
	}
	if secret := md.Spec.Model.CredentialsSecret; secret != "" {
		list = append(list, corev1.Volume{Name: "credentials", VolumeSource: corev1.VolumeSource{
			Secret: &corev1.SecretVolumeSource{SecretName: secret},
		}})
	}
	if name := claim(md); name != "" {
		list = append(list, corev1.Volume{Name: "claim", VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name, ReadOnly: true},
		}})
	}
	return list
}

func emptyDir(limit resource.Quantity) corev1.VolumeSource {
	return corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: &limit}}
}

func mounts(md *ModelDeployment) []corev1.VolumeMount {
	list := []corev1.VolumeMount{
		{Name: "plan", MountPath: planDir, ReadOnly: true},
		{Name: "models", MountPath: modelDir},
		{Name: "tmp", MountPath: "/tmp"},
	}
	if secret := md.Spec.Model.CredentialsSecret; secret != "" {
		list = append(list, corev1.VolumeMount{Name: "credentials", MountPath: credentialsDir + "/" + secret, ReadOnly: true})
	}
	if name := claim(md); name != "" {
		list = append(list, corev1.VolumeMount{Name: "claim", MountPath: pvcDir + "/" + name, ReadOnly: true})
	}
	return list
}

// claim is the PersistentVolumeClaim in pvc://CLAIM/PATH.
func claim(md *ModelDeployment) string {
	rest, found := strings.CutPrefix(md.Spec.Model.URI, "pvc://")
	if !found {
		return ""
	}
	name, _, _ := strings.Cut(rest, "/")
	return name
}
