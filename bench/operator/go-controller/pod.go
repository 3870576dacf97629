package main

import (
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

	user = 65532
	// probePeriod is short: the time until a pod joins its Service is downtime of a rollout.
	probePeriod = 2
	// graceSeconds is the time to go on accepting (5), to drain (30) and a reserve.
	graceSeconds = 40
)

func (m *Maker) template(md *ModelDeployment, names Names) corev1.PodTemplateSpec {
	labels := map[string]string{
		labelManagedBy:  managedBy,
		labelDeployment: md.Name,
		labelPodSet:     names.podSet,
		labelPodSetHash: names.podSetHash,
	}
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: labels},
		Spec:       m.podSpec(md, names.plan, names.podSet),
	}
}

func (m *Maker) podSpec(md *ModelDeployment, plan, podSet string) corev1.PodSpec {
	spec := md.Spec
	return corev1.PodSpec{
		ServiceAccountName:            capped(md.Name, "server", dnsLabelLimit),
		AutomountServiceAccountToken:  ptr.To(false),
		EnableServiceLinks:            ptr.To(false),
		TerminationGracePeriodSeconds: ptr.To(int64(graceSeconds)),
		NodeSelector:                  spec.Resources.NodeSelector,
		Tolerations:                   spec.Resources.Tolerations,
		PriorityClassName:             spec.Resources.PriorityClassName,
		RuntimeClassName:              spec.Resources.RuntimeClassName,
		TopologySpreadConstraints:     []corev1.TopologySpreadConstraint{spread("kubernetes.io/hostname", podSet), spread("topology.kubernetes.io/zone", podSet)},
		SecurityContext: &corev1.PodSecurityContext{
			RunAsNonRoot:   ptr.To(true),
			RunAsUser:      ptr.To(int64(user)),
			RunAsGroup:     ptr.To(int64(user)),
			FSGroup:        ptr.To(int64(user)),
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		},
		Containers: []corev1.Container{m.container(md)},
		Volumes:    volumes(md, plan),
	}
}

func (m *Maker) container(md *ModelDeployment) corev1.Container {
	image := md.Spec.Server.Image
	if image == "" {
		image = m.image
	}
	startup := probe(readyPath)
	startup.FailureThreshold = (md.Spec.Server.StartupTimeoutSeconds + probePeriod - 1) / probePeriod
	return corev1.Container{
		Name:            "server",
		Image:           image,
		ImagePullPolicy: corev1.PullIfNotPresent,
		Ports: []corev1.ContainerPort{
			{Name: "http", ContainerPort: httpPort, Protocol: corev1.ProtocolTCP},
			{Name: "admin", ContainerPort: adminPort, Protocol: corev1.ProtocolTCP},
		},
		Env:                      m.environment(md),
		Resources:                requirements(md.Spec.Resources),
		StartupProbe:             startup,
		ReadinessProbe:           probe(readyPath),
		LivenessProbe:            probe(livePath),
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
		{Name: "MODELPIER_CREDENTIALS_DIR", Value: credentialsDir},
		{Name: "MODELPIER_PVC_DIR", Value: pvcDir},
		{Name: "MODELPIER_POD_NAME", ValueFrom: &corev1.EnvVarSource{
			FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.name"},
		}},
		{Name: "MODELPIER_TERMINATION_LOG", Value: terminationLog},
	}
}

// probe names every default with a value: semantic comparison would take a zero for a difference.
func probe(path string) *corev1.Probe {
	get := &corev1.HTTPGetAction{Path: path, Port: intstr.FromString("http"), Scheme: corev1.URISchemeHTTP}
	return &corev1.Probe{
		ProbeHandler:     corev1.ProbeHandler{HTTPGet: get},
		PeriodSeconds:    probePeriod,
		TimeoutSeconds:   1,
		SuccessThreshold: 1,
		FailureThreshold: 3,
	}
}

func requirements(resources Resources) corev1.ResourceRequirements {
	requests := corev1.ResourceList{
		corev1.ResourceCPU:              resources.CPU,
		corev1.ResourceMemory:           resources.Memory,
		corev1.ResourceEphemeralStorage: resources.ModelStorage,
	}
	limits := corev1.ResourceList{corev1.ResourceMemory: resources.Memory}
	if resources.CPULimit != nil {
		limits[corev1.ResourceCPU] = *resources.CPULimit
	}
	if resources.GPU > 0 {
		count := *resource.NewQuantity(resources.GPU, resource.DecimalSI)
		requests[corev1.ResourceName(resources.GPUResource)] = count
		limits[corev1.ResourceName(resources.GPUResource)] = count
	}
	return corev1.ResourceRequirements{Requests: requests, Limits: limits}
}

func spread(key, podSet string) corev1.TopologySpreadConstraint {
	return corev1.TopologySpreadConstraint{
		MaxSkew:           1,
		TopologyKey:       key,
		WhenUnsatisfiable: corev1.ScheduleAnyway,
		LabelSelector:     &metav1.LabelSelector{MatchLabels: map[string]string{labelPodSet: podSet}},
	}
}

func volumes(md *ModelDeployment, plan string) []corev1.Volume {
	list := []corev1.Volume{
		{Name: "plan", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
			LocalObjectReference: corev1.LocalObjectReference{Name: plan},
		}}},
		{Name: "models", VolumeSource: emptyDir(md.Spec.Resources.ModelStorage)},
		{Name: "tmp", VolumeSource: emptyDir(resource.MustParse("64Mi"))},
	}
	if secret := md.Spec.Model.CredentialsSecret; secret != "" {
		list = append(list, corev1.Volume{Name: "credentials", VolumeSource: corev1.VolumeSource{
			Secret: &corev1.SecretVolumeSource{SecretName: secret},
		}})
	}
	for _, claim := range claims(md) {
		list = append(list, corev1.Volume{Name: "pvc-" + claim, VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim, ReadOnly: true},
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
	for _, claim := range claims(md) {
		list = append(list, corev1.VolumeMount{Name: "pvc-" + claim, MountPath: pvcDir + "/" + claim, ReadOnly: true})
	}
	return list
}

func claims(md *ModelDeployment) []string {
	rest, found := strings.CutPrefix(md.Spec.Model.URI, "pvc://")
	if !found {
		return nil
	}
	claim, _, _ := strings.Cut(rest, "/")
	return []string{claim}
}
