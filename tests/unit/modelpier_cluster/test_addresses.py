from ipaddress import IPv4Network
from itertools import combinations

import pytest

from modelpier_cluster.addresses import MAX_NODES, SLOTS, Addresses, check_name, node_names, node_number
from modelpier_cluster.errors import ClusterError
from modelpier_cluster.network import free_slot

RESERVED = [IPv4Network(n) for n in ("198.51.100.0/24", "203.0.113.0/24", "198.18.0.0/15")]


def networks(slot: int) -> list[IPv4Network]:
    addresses = Addresses(slot)
    return [addresses.node_network, addresses.pods, addresses.services]


def test_no_two_clusters_share_an_address() -> None:
    everything = [network for slot in range(SLOTS) for network in networks(slot)]
    assert not [pair for pair in combinations(everything, 2) if pair[0].overlaps(pair[1])]


def test_only_addresses_reserved_for_tests_and_documentation_are_used() -> None:
    for slot in range(SLOTS):
        for network in networks(slot):
            assert any(network.subnet_of(reserved) for reserved in RESERVED), network


@pytest.mark.parametrize("slot", [0, 7, SLOTS - 1])
def test_everything_in_a_cluster_has_an_address_of_its_own(slot: int) -> None:
    addresses = Addresses(slot)
    hosts = [addresses.control_plane, addresses.host, *(addresses.node(n) for n in node_names(MAX_NODES))]
    assert len(set(hosts)) == len(hosts)
    assert all(host in list(addresses.node_network.hosts()) for host in hosts)
    assert addresses.kubernetes_service in addresses.services


def test_pods_of_nodes_do_not_overlap() -> None:
    addresses = Addresses(3)
    ranges = [addresses.node_pods(node) for node in node_names(MAX_NODES)]
    assert all(r.subnet_of(addresses.pods) for r in ranges)
    assert not [pair for pair in combinations(ranges, 2) if pair[0].overlaps(pair[1])]


def test_link_names_fit_the_kernel() -> None:
    assert len(Addresses(SLOTS - 1).host_link) <= 15


@pytest.mark.parametrize("name", ["", "A", "a_b", "-a", "a-", "a" * 31, "a/b", "../x"])
def test_bad_names_are_refused_with_the_remedy(name: str) -> None:
    with pytest.raises(ClusterError, match="--name"):
        check_name(name)


@pytest.mark.parametrize("name", ["a", "modelpier", "a-1", "a" * 30])
def test_good_names(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("count", [0, -1, MAX_NODES + 1])
def test_number_of_nodes_is_bounded(count: int) -> None:
    with pytest.raises(ClusterError, match="--nodes"):
        node_names(count)


@pytest.mark.parametrize("name", ["n0", "n10", "x", "cp", "n1 "])
def test_unknown_nodes_are_refused(name: str) -> None:
    with pytest.raises(ClusterError, match="is no node"):
        node_number(name)


def test_the_previous_slot_is_taken_again_when_it_is_free() -> None:
    taken = {Addresses(0).host_link, "eth0"}
    assert free_slot(None, taken) == 1
    assert free_slot(5, taken) == 5
    assert free_slot(0, taken) == 1


def test_when_all_slots_are_taken_the_remedy_is_named() -> None:
    with pytest.raises(ClusterError, match="down --name"):
        free_slot(None, {Addresses(slot).host_link for slot in range(SLOTS)})
