package main

import (
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

var groupVersion = schema.GroupVersion{Group: "modelpier.dev", Version: "v1alpha1"}

// ModelDeployment is the custom resource, with the fields of the CRD in crds/. The API server has set every default.
type ModelDeployment struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              Spec   `json:"spec"`
	Status            Status `json:"status,omitempty"`
}

type ModelDeploymentList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ModelDeployment `json:"items"`
}

type Spec struct {
	Model     Model     `json:"model"`
	Server    Server    `json:"server"`
	Resources Resources `json:"resources"`
	Replicas  int32     `json:"replicas"`
	Rollout   Rollout   `json:"rollout"`
	Access    Access    `json:"access,omitempty"`
}

type Model struct {
	URI               string `json:"uri"`
	Version           string `json:"version,omitempty"`
	Digest            string `json:"digest,omitempty"`
	CredentialsSecret string `json:"credentialsSecret,omitempty"`
	Tests             Tests  `json:"tests"`
}

type Tests struct {
	Enabled           bool    `json:"enabled"`
	RelativeTolerance float64 `json:"relativeTolerance"`
	AbsoluteTolerance float64 `json:"absoluteTolerance"`
}

type Server struct {
	ExecutionProviders    []Provider `json:"executionProviders,omitempty"`
	Instances             int        `json:"instances"`
	Threads               int        `json:"threads"`
	Batching              Batching   `json:"batching"`
	Limits                Limits     `json:"limits"`
	StartupTimeoutSeconds int32      `json:"startupTimeoutSeconds"`
	Image                 string     `json:"image,omitempty"`
	ImagePullSecrets      []string   `json:"imagePullSecrets,omitempty"`
	ServiceAccountName    string     `json:"serviceAccountName,omitempty"`
	RuntimeUpgrade        string     `json:"runtimeUpgrade,omitempty"`
	Isolated              bool       `json:"isolated"`
	GraphOptimization     string     `json:"graphOptimization"`
	Hooks                 bool       `json:"hooks"`
	CustomOperators       []string   `json:"customOperators,omitempty"`
}

type Provider struct {
	Name    string            `json:"name"`
	Options map[string]string `json:"options"`
}

type Batching struct {
	Enabled              bool               `json:"enabled"`
	MaxRows              int                `json:"maxRows"`
	MaxDelayMicroseconds int64              `json:"maxDelayMicroseconds"`
	Padding              map[string]float64 `json:"padding,omitempty"`
	Mask                 string             `json:"mask,omitempty"`
}

type Limits struct {
	MaxQueue                 int   `json:"maxQueue"`
	MaxQueueWaitMilliseconds int64 `json:"maxQueueWaitMilliseconds"`
	PriorityLevels           int   `json:"priorityLevels"`
	RunTimeoutSeconds        int   `json:"runTimeoutSeconds"`
	RequestTimeoutSeconds    int   `json:"requestTimeoutSeconds"`
	MaxBodyBytes             int64 `json:"maxBodyBytes"`
}

type Resources struct {
	GPU               int64               `json:"gpu"`
	GPUResource       string              `json:"gpuResource"`
	CPU               resource.Quantity   `json:"cpu"`
	CPULimit          *resource.Quantity  `json:"cpuLimit,omitempty"`
	Memory            resource.Quantity   `json:"memory"`
	ModelStorage      resource.Quantity   `json:"modelStorage"`
	NodeSelector      map[string]string   `json:"nodeSelector,omitempty"`
	Tolerations       []corev1.Toleration `json:"tolerations,omitempty"`
	PriorityClassName string              `json:"priorityClassName,omitempty"`
	RuntimeClassName  *string             `json:"runtimeClassName,omitempty"`
}

type Rollout struct {
	Strategy                string `json:"strategy,omitempty"`
	CapacityWaitSeconds     int32  `json:"capacityWaitSeconds"`
	ProgressDeadlineSeconds int32  `json:"progressDeadlineSeconds"`
	RevisionHistoryLimit    int32  `json:"revisionHistoryLimit"`
}

type Access struct {
	From []networkingv1.NetworkPolicyPeer `json:"from,omitempty"`
}

type Status struct {
	ObservedGeneration int64              `json:"observedGeneration,omitempty"`
	URL                string             `json:"url,omitempty"`
	Version            string             `json:"version,omitempty"`
	Replicas           *int32             `json:"replicas,omitempty"`
	ReadyReplicas      *int32             `json:"readyReplicas,omitempty"`
	Selector           string             `json:"selector,omitempty"`
	Conditions         []metav1.Condition `json:"conditions,omitempty"`
	Revisions          []RevisionStatus   `json:"revisions,omitempty"`
	Rollout            *RolloutStatus     `json:"rollout,omitempty"`
}

type RolloutStatus struct {
	Phase string `json:"phase,omitempty"`
}

type RevisionStatus struct {
	Name          string `json:"name"`
	Version       string `json:"version,omitempty"`
	PodSet        string `json:"podSet,omitempty"`
	Weight        int32  `json:"weight"`
	Replicas      int32  `json:"replicas"`
	ReadyReplicas int32  `json:"readyReplicas"`
	Phase         string `json:"phase,omitempty"`
	Reason        string `json:"reason,omitempty"`
	Message       string `json:"message,omitempty"`
}

// DeepCopyObject shares the spec: this controller never changes one. That spares it work that generated code would do.
func (m *ModelDeployment) DeepCopyObject() runtime.Object {
	out := *m
	m.ObjectMeta.DeepCopyInto(&out.ObjectMeta)
	out.Status.Conditions = append([]metav1.Condition(nil), m.Status.Conditions...)
	out.Status.Revisions = append([]RevisionStatus(nil), m.Status.Revisions...)
	return &out
}

func (l *ModelDeploymentList) DeepCopyObject() runtime.Object {
	out := *l
	out.Items = make([]ModelDeployment, len(l.Items))
	for i := range l.Items {
		out.Items[i] = *(l.Items[i].DeepCopyObject().(*ModelDeployment))
	}
	return &out
}

func addToScheme(scheme *runtime.Scheme) {
	scheme.AddKnownTypes(groupVersion, &ModelDeployment{}, &ModelDeploymentList{})
	metav1.AddToGroupVersion(scheme, groupVersion)
}
