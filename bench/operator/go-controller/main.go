// controller does the operator's job with controller-runtime, the way most Go operators are written: cached reads,
// CreateOrUpdate per child, ten workers. It exists for bench/operator alone, which runs it beside the operator.
package main

import (
	"crypto/ed25519"
	"flag"
	"fmt"
	"os"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
)

func main() {
	workers := flag.Int("workers", 10, "ModelDeployments that are reconciled at the same time")
	namespace := flag.String("namespace", "modelpier-system", "where the Lease is")
	image := flag.String("image", "", "image of the model servers")
	seed := flag.String("key-file", "", "file with the 32 raw bytes of the Ed25519 key that signs plans")
	flag.Parse()
	if err := run(*workers, *namespace, *image, *seed); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(workers int, namespace, image, seedFile string) error {
	ctrl.SetLogger(klog.NewKlogr()) // to standard error: errors, and a few lines at start-up
	key, err := planKey(seedFile)
	if err != nil {
		return err
	}
	config, err := ctrl.GetConfig()
	if err != nil {
		return err
	}
	scheme := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		return err
	}
	addToScheme(scheme)
	manager, err := ctrl.NewManager(config, ctrl.Options{
		Scheme:                        scheme,
		Cache:                         cacheOptions(),
		Metrics:                       metricsserver.Options{BindAddress: "0"},
		LeaderElection:                true,
		LeaderElectionID:              "modelpier-operator",
		LeaderElectionNamespace:       namespace,
		LeaderElectionReleaseOnCancel: true,
	})
	if err != nil {
		return err
	}
	reconciler := &Reconciler{Client: manager.GetClient(), scheme: scheme, maker: NewMaker(image, namespace, key)}
	if err := register(manager, reconciler, workers); err != nil {
		return err
	}
	return manager.Start(ctrl.SetupSignalHandler())
}

func register(manager ctrl.Manager, reconciler *Reconciler, workers int) error {
	return ctrl.NewControllerManagedBy(manager).
		Named("modeldeployment").
		For(&ModelDeployment{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Owns(&appsv1.ControllerRevision{}).
		Owns(&appsv1.Deployment{}).
		Owns(&corev1.ConfigMap{}).
		Owns(&corev1.Service{}).
		Owns(&corev1.ServiceAccount{}).
		Owns(&networkingv1.NetworkPolicy{}).
		Owns(&policyv1.PodDisruptionBudget{}).
		WithOptions(controller.Options{MaxConcurrentReconciles: workers}).
		Complete(reconciler)
}

// cacheOptions keeps foreign objects and managedFields out of memory, as the operator's own caches do.
func cacheOptions() cache.Options {
	ours := cache.ByObject{Label: labels.SelectorFromSet(labels.Set{labelManagedBy: managedBy})}
	return cache.Options{
		DefaultTransform: cache.TransformStripManagedFields(),
		ByObject: map[client.Object]cache.ByObject{
			&appsv1.ControllerRevision{}:    ours,
			&appsv1.Deployment{}:            ours,
			&corev1.ConfigMap{}:             ours,
			&corev1.Service{}:               ours,
			&corev1.ServiceAccount{}:        ours,
			&networkingv1.NetworkPolicy{}:   ours,
			&policyv1.PodDisruptionBudget{}: ours,
		},
	}
}

func planKey(file string) (ed25519.PrivateKey, error) {
	seed, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	if len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("--key-file %s: must hold %d bytes, holds %d", file, ed25519.SeedSize, len(seed))
	}
	return ed25519.NewKeyFromSeed(seed), nil
}
