# Run as root by systemd on the emulated machine (emulated_machine.py): a cluster from up to down, and nothing left.
set -eu
cluster() { python3 /opt/cluster/cluster.py "$@"; }
kubectl() { /opt/programs/kubectl --kubeconfig=/root/.local/state/modelpier/clusters/trial/admin.kubeconfig "$@"; }
trap 'code=$?; [ $code = 0 ] || { echo "FAILED with $code"; tail -n 5 /root/.local/state/modelpier/clusters/trial/log/*.log; }' EXIT

echo "kernel $(uname -r), $(systemctl --version | head -n 1), /sys/fs/cgroup is $(stat -fc %T /sys/fs/cgroup)"
[ "$(stat -fc %T /sys/fs/cgroup)" = cgroup2fs ]
mkdir -p /root/.cache /root/.local/state
ip link set lo up
links_before=$(ls /sys/class/net)
mounts_before=$(wc -l < /proc/self/mounts)

logs=/root/.local/state/modelpier/clusters/trial/log
while sleep 60; do  # what the parts say, as nobody can look into this machine
    uptime; tail -qn 2 $logs/events $logs/control-plane.log $logs/etcd.log $logs/apiserver.log $logs/n1*.log 2>/dev/null | cut -c1-300
done &
watcher=$!
cluster up --name trial --nodes 1 --gpus 1 --timeout 1500 --node-monitor-grace 3m
scope=/sys/fs/cgroup/system.slice/modelpier-cluster-trial.scope
echo "the scope offers: $(cat $scope/cgroup.subtree_control); its own processes: $(wc -l < $scope/cgroup.procs)"
[ -z "$(cat $scope/cgroup.procs)" ]
systemctl show --property=Delegate --property=ActiveState modelpier-cluster-trial.scope

image=$(cluster load --name trial /opt/probe.tar)
kubectl apply -f - << EOF
{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "probe"}, "spec": {"terminationGracePeriodSeconds": 0,
 "containers": [{"name": "c", "image": "$image", "resources": {"limits": {"memory": "64Mi", "cpu": "500m", "nvidia.com/gpu": "1"}}}]}}
EOF
kubectl wait --for=condition=Ready pod/probe --timeout=600s
kubectl get pods -o wide
limit=$(find "$scope/n1" -name memory.max -path '*kubepods/pod*' | head -n 1)
echo "limits of the pod: $(cat "$limit") bytes, cpu.max $(cat "${limit%memory.max}cpu.max")"
[ "$(cat "$limit")" = 67108864 ]

# A node that is added later belongs to the scope as well, not to the session of whoever typed the command.
cluster start --name trial --timeout 1500 n2
for process in $(pgrep -f 'kube kubelet'); do
    grep -q modelpier-cluster-trial.scope "/proc/$process/cgroup"
done
cluster stop --name trial n2

kill $watcher
cluster down --name trial
[ ! -e "$scope" ]
[ "$(ls /sys/class/net)" = "$links_before" ]
[ "$(wc -l < /proc/self/mounts)" = "$mounts_before" ]
if pgrep -f /opt/programs/; then exit 1; fi
if systemctl list-units --all --plain --no-legend 'modelpier*' | grep modelpier; then exit 1; fi
if iptables-save | grep KUBE; then exit 1; fi
echo "THE TRIAL PASSED"
