package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/dynamic-resource-allocation/kubeletplugin"
	"k8s.io/dynamic-resource-allocation/resourceslice"
	dp "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

// fakeGPU offers COUNT pretended GPUs to the kubelet of this node in both ways Kubernetes knows: the extended resource
// nvidia.com/gpu (device plugin API) and ResourceSlices of the driver gpu.nvidia.com (dynamic resource allocation).
// Containers get the assigned identifiers in $NVIDIA_VISIBLE_DEVICES. A file /run/fake-gpu-unhealthy lists "sick" ones.
type fakeGPU struct {
	dp.UnimplementedDevicePluginServer
	ids []string
	cdi string // directory of CDI specifications
	mu  sync.Mutex
}

const sick = "/run/fake-gpu-unhealthy"

func (f *fakeGPU) devices() (list []*dp.Device) {
	text, _ := os.ReadFile(sick)
	for _, id := range f.ids {
		health := dp.Healthy
		if strings.Contains(string(text)+"\n", id+"\n") {
			health = dp.Unhealthy
		}
		list = append(list, &dp.Device{ID: id, Health: health})
	}
	return
}

func (f *fakeGPU) GetDevicePluginOptions(context.Context, *dp.Empty) (*dp.DevicePluginOptions, error) {
	return &dp.DevicePluginOptions{}, nil
}

func (f *fakeGPU) ListAndWatch(_ *dp.Empty, s grpc.ServerStreamingServer[dp.ListAndWatchResponse]) error {
	for last := ""; s.Context().Err() == nil; time.Sleep(200 * time.Millisecond) {
		r := &dp.ListAndWatchResponse{Devices: f.devices()}
		if r.String() != last {
			last = r.String()
			if err := s.Send(r); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f *fakeGPU) Allocate(_ context.Context, r *dp.AllocateRequest) (*dp.AllocateResponse, error) {
	out := &dp.AllocateResponse{}
	for _, c := range r.ContainerRequests {
		log.Print("Allocate ", c.DevicesIds)
		out.ContainerResponses = append(out.ContainerResponses, &dp.ContainerAllocateResponse{
			Envs: map[string]string{"NVIDIA_VISIBLE_DEVICES": strings.Join(c.DevicesIds, ",")}})
	}
	return out, nil
}

func (f *fakeGPU) servePlugin() error {
	sock := dp.DevicePluginPath + "fake-gpu.sock"
	os.Remove(sock)
	l, err := net.Listen("unix", sock)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	dp.RegisterDevicePluginServer(server, f)
	go server.Serve(l)
	conn, err := grpc.NewClient("unix://"+dp.KubeletSocket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = dp.NewRegistrationClient(conn).Register(context.Background(), &dp.RegisterRequest{
		Version: dp.Version, Endpoint: filepath.Base(sock), ResourceName: "nvidia.com/gpu"})
	return err
}

const driver = "gpu.nvidia.com"

func (f *fakeGPU) PrepareResourceClaims(_ context.Context, claims []*resourceapi.ResourceClaim) (map[types.UID]kubeletplugin.PrepareResult, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := map[types.UID]kubeletplugin.PrepareResult{}
	for _, c := range claims {
		var names []string
		var r kubeletplugin.PrepareResult
		for _, d := range c.Status.Allocation.Devices.Results {
			if d.Driver == driver {
				names = append(names, d.Device)
				r.Devices = append(r.Devices, kubeletplugin.Device{Requests: []string{d.Request}, PoolName: d.Pool, DeviceName: d.Device,
					CDIDeviceIDs: []string{"gpu.modelpier.test/gpu=" + string(c.UID)}})
			}
		}
		log.Print("Prepare ", c.Name, names)
		spec, _ := json.Marshal(map[string]any{"cdiVersion": "0.6.0", "kind": "gpu.modelpier.test/gpu", "devices": []any{map[string]any{
			"name": string(c.UID), "containerEdits": map[string]any{"env": []string{"NVIDIA_VISIBLE_DEVICES=" + strings.Join(names, ",")}}}}})
		r.Err = os.WriteFile(f.spec(c.UID), spec, 0o644)
		out[c.UID] = r
	}
	return out, nil
}

func (f *fakeGPU) spec(uid types.UID) string {
	return filepath.Join(f.cdi, "gpu.modelpier.test-"+string(uid)+".json")
}

func (f *fakeGPU) UnprepareResourceClaims(_ context.Context, claims []kubeletplugin.NamespacedObject) (map[types.UID]error, error) {
	out := map[types.UID]error{}
	for _, c := range claims {
		os.Remove(f.spec(c.UID))
		out[c.UID] = nil
	}
	return out, nil
}

func (f *fakeGPU) HandleError(_ context.Context, err error, msg string) { log.Print(msg, ": ", err) }

func (f *fakeGPU) serveDRA(ctx context.Context, kubeconfig, node string) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	client := kubernetes.NewForConfigOrDie(config)
	dir := "/var/lib/kubelet/plugins/" + driver
	for _, d := range []string{dir, f.cdi} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	helper, err := kubeletplugin.Start(ctx, f, kubeletplugin.DriverName(driver), kubeletplugin.KubeClient(client), kubeletplugin.NodeName(node),
		kubeletplugin.PluginDataDirectoryPath(dir))
	if err != nil {
		return err
	}
	var list []resourceapi.Device
	product, memory := "Fake H100", resource.MustParse("80Gi")
	for _, id := range f.ids {
		list = append(list, resourceapi.Device{Name: strings.ToLower(id),
			Attributes: map[resourceapi.QualifiedName]resourceapi.DeviceAttribute{"productName": {StringValue: &product}},
			Capacity:   map[resourceapi.QualifiedName]resourceapi.DeviceCapacity{"memory": {Value: memory}}})
	}
	return helper.PublishResources(ctx, resourceslice.DriverResources{Pools: map[string]resourceslice.Pool{
		node: {Slices: []resourceslice.Slice{{Devices: list}}}}})
}

func fakeGPUCommand() *cobra.Command {
	var count int
	var node, kubeconfig string
	cmd := &cobra.Command{Use: "fake-gpu", RunE: func(cmd *cobra.Command, _ []string) error {
		f := &fakeGPU{cdi: "/var/run/cdi"}
		for i := range count {
			f.ids = append(f.ids, fmt.Sprintf("gpu-%s-%d", node, i))
		}
		var inode os.FileInfo
		dra := false
		for ; ; time.Sleep(200 * time.Millisecond) { // a kubelet that restarts makes a new socket and forgets its plugins
			now, err := os.Stat(dp.KubeletSocket)
			if err != nil {
				continue
			}
			if inode == nil || !os.SameFile(inode, now) {
				if err := f.servePlugin(); err != nil {
					log.Print(err)
					continue
				}
				log.Print("registered with the kubelet")
				inode = now
			}
			if !dra {
				if err := f.serveDRA(cmd.Context(), kubeconfig, node); err != nil {
					return err
				}
				dra = true
			}
		}
	}}
	cmd.Flags().IntVar(&count, "count", 8, "GPUs")
	cmd.Flags().StringVar(&node, "node", "", "node name")
	cmd.Flags().StringVar(&kubeconfig, "kubeconfig", "", "kubeconfig of the node")
	return cmd
}
