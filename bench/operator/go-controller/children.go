package main

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Maker makes the children of ModelDeployments; it holds what the administrator decides.
type Maker struct {
	image     string
	namespace string
	key       ed25519.PrivateKey
	publicKey string
}

func NewMaker(image, namespace string, key ed25519.PrivateKey) *Maker {
	public := base64.StdEncoding.EncodeToString(key.Public().(ed25519.PublicKey))
	return &Maker{image: image, namespace: namespace, key: key, publicKey: public}
}

// Children are all objects that one ModelDeployment owns.
type Children struct {
	names          Names
	revision       *appsv1.ControllerRevision
	plan           *corev1.ConfigMap
	serviceAccount *corev1.ServiceAccount
	networkPolicy  *networkingv1.NetworkPolicy
	service        *corev1.Service
	budget         *policyv1.PodDisruptionBudget
	deployment     *appsv1.Deployment
}

// inOrder ends with the Deployment: its pods need everything else.
func (c *Children) inOrder() []client.Object {
	objects := []client.Object{c.revision, c.plan, c.serviceAccount, c.networkPolicy, c.service}
	if c.budget != nil {
		objects = append(objects, c.budget)
	}
	return append(objects, c.deployment)
}

func (m *Maker) names(md *ModelDeployment) Names {
	revisionHash := digest(intent(md))
	podSetHash := digest(m.frozen(md))
	podSet := capped(md.Name, podSetHash+"-1", podSetLimit)
	return Names{
		revisionHash:   revisionHash,
		podSetHash:     podSetHash,
		revision:       capped(md.Name, revisionHash, dnsLabelLimit),
		podSet:         podSet,
		plan:           podSet + "-plan",
		serviceAccount: capped(md.Name, "server", nameLimit),
		networkPolicy:  capped(md.Name, "admin", nameLimit),
	}
}

// Make returns every child, complete. `livePlan` is the plan that the ConfigMap holds, or empty.
func (m *Maker) Make(md *ModelDeployment, livePlan string, now time.Time) (*Children, error) {
	names := m.names(md)
	revision, err := m.revision(md, names, now)
	if err != nil {
		return nil, err
	}
	plan, err := m.plan(md, names, livePlan, now)
	if err != nil {
		return nil, err
	}
	children := &Children{
		names:          names,
		revision:       revision,
		plan:           plan,
		serviceAccount: m.serviceAccount(md, names),
		networkPolicy:  m.networkPolicy(md, names),
		service:        m.service(md, names, now),
		deployment:     m.deployment(md, names),
	}
	if md.Spec.Replicas >= 2 {
		children.budget = m.budget(md)
	}
	return children, nil
}

func objectMeta(md *ModelDeployment, name string, extra map[string]string) metav1.ObjectMeta {
	labels := map[string]string{labelManagedBy: managedBy, labelName: app, labelDeployment: md.Name}
	return metav1.ObjectMeta{Name: name, Namespace: md.Namespace, Labels: merged(labels, extra)}
}

func (m *Maker) revision(md *ModelDeployment, names Names, now time.Time) (*appsv1.ControllerRevision, error) {
	data, err := json.Marshal(map[string]any{"spec": intent(md), "template": m.frozen(md)})
	if err != nil {
		return nil, err
	}
	object := objectMeta(md, names.revision, map[string]string{labelRevisionHash: names.revisionHash})
	object.Annotations = map[string]string{annotationStarted: now.UTC().Format(time.RFC3339)}
	return &appsv1.ControllerRevision{ObjectMeta: object, Revision: 1, Data: runtime.RawExtension{Raw: data}}, nil
}

func (m *Maker) plan(md *ModelDeployment, names Names, live string, now time.Time) (*corev1.ConfigMap, error) {
	plan := Plan{
		OwnerUID: string(md.UID),
		PodSet:   names.podSet,
		Models:   []PlannedModel{plannedModel(md, names.revision, version(md, names))},
	}
	data, err := planData(plan, live, m.key, now)
	if err != nil {
		return nil, err
	}
	object := objectMeta(md, names.plan, map[string]string{labelPodSet: names.podSet})
	object.Annotations = map[string]string{annotationRevision: names.revision}
	return &corev1.ConfigMap{ObjectMeta: object, Data: data}, nil
}

func version(md *ModelDeployment, names Names) string {
	if md.Spec.Model.Version != "" {
		return md.Spec.Model.Version
	}
	return names.revisionHash[:8]
}

func (m *Maker) serviceAccount(md *ModelDeployment, names Names) *corev1.ServiceAccount {
	return &corev1.ServiceAccount{
		ObjectMeta:                   objectMeta(md, names.serviceAccount, nil),
		AutomountServiceAccountToken: ptr.To(false),
	}
}

func (m *Maker) networkPolicy(md *ModelDeployment, names Names) *networkingv1.NetworkPolicy {
	all := func(protocol corev1.Protocol) networkingv1.NetworkPolicyPort {
		return networkingv1.NetworkPolicyPort{Protocol: ptr.To(protocol)}
	}
	port := func(number int32) networkingv1.NetworkPolicyPort {
		single := all(corev1.ProtocolTCP)
		single.Port = ptr.To(intstr.FromInt32(number))
		return single
	}
	ports := func(first, last int32) networkingv1.NetworkPolicyPort {
		span := port(first)
		span.EndPort = ptr.To(last)
		return span
	}
	others := []networkingv1.NetworkPolicyPort{
		ports(1, adminPort-1), ports(adminPort+1, 65535), all(corev1.ProtocolUDP), all(corev1.ProtocolSCTP),
	}
	operator := networkingv1.NetworkPolicyPeer{
		NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"kubernetes.io/metadata.name": m.namespace}},
		PodSelector:       &metav1.LabelSelector{MatchLabels: map[string]string{labelName: "modelpier-operator"}},
	}
	return &networkingv1.NetworkPolicy{
		ObjectMeta: objectMeta(md, names.networkPolicy, nil),
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{labelDeployment: md.Name}},
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress},
			Ingress: []networkingv1.NetworkPolicyIngressRule{
				{Ports: others, From: md.Spec.Access.From},
				{Ports: []networkingv1.NetworkPolicyPort{port(adminPort)}, From: []networkingv1.NetworkPolicyPeer{operator}},
			},
		},
	}
}

func (m *Maker) service(md *ModelDeployment, names Names, now time.Time) *corev1.Service {
	object := objectMeta(md, md.Name, nil)
	object.Annotations = map[string]string{annotationSelected: now.UTC().Format(time.RFC3339)}
	return &corev1.Service{
		ObjectMeta: object,
		Spec: corev1.ServiceSpec{
			Type:     corev1.ServiceTypeClusterIP,
			Selector: map[string]string{labelDeployment: md.Name, labelPodSet: names.podSet},
			Ports: []corev1.ServicePort{
				{Name: "http", Port: 80, TargetPort: intstr.FromString("http"), Protocol: corev1.ProtocolTCP},
				{
					Name: "grpc", Port: grpcPort, TargetPort: intstr.FromString("grpc"), Protocol: corev1.ProtocolTCP,
					AppProtocol: ptr.To("kubernetes.io/h2c"),
				},
			},
		},
	}
}

func (m *Maker) budget(md *ModelDeployment) *policyv1.PodDisruptionBudget {
	return &policyv1.PodDisruptionBudget{
		ObjectMeta: objectMeta(md, md.Name, nil),
		Spec: policyv1.PodDisruptionBudgetSpec{
			MaxUnavailable:             ptr.To(intstr.FromInt32(1)),
			UnhealthyPodEvictionPolicy: ptr.To(policyv1.AlwaysAllow),
			Selector:                   &metav1.LabelSelector{MatchLabels: map[string]string{labelDeployment: md.Name}},
		},
	}
}

func (m *Maker) deployment(md *ModelDeployment, names Names) *appsv1.Deployment {
	labels := map[string]string{labelPodSet: names.podSet, labelPodSetHash: names.podSetHash}
	object := objectMeta(md, names.podSet, labels)
	object.Annotations = map[string]string{annotationRevision: names.revision}
	return &appsv1.Deployment{
		ObjectMeta: object,
		Spec: appsv1.DeploymentSpec{
			Replicas:                ptr.To(md.Spec.Replicas),
			RevisionHistoryLimit:    ptr.To(int32(1)),
			ProgressDeadlineSeconds: ptr.To(md.Spec.Rollout.ProgressDeadlineSeconds),
			Selector:                &metav1.LabelSelector{MatchLabels: map[string]string{labelPodSet: names.podSet}},
			Strategy: appsv1.DeploymentStrategy{
				Type: appsv1.RollingUpdateDeploymentStrategyType,
				RollingUpdate: &appsv1.RollingUpdateDeployment{
					MaxSurge:       ptr.To(intstr.FromInt32(0)),
					MaxUnavailable: ptr.To(intstr.FromInt32(1)),
				},
			},
			Template: m.template(md, names),
		},
	}
}
