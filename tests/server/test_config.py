"""Settings: where they come from, which of them wins, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from meshlib.errors import ConfigError
from meshlib.gossip import GossipConfig
from meshlib.state import ConfiguredDefaults
from meshlib_server.config import (
    MeshSettings,
    ModelSettings,
    PolicySettings,
    load_settings,
    settings_paths,
)

SPECIFICATION = """
mesh:
  enabled: true
  self_name: "router-node-1"
  self_addr: "0.0.0.0:8000"
  init_peer: "router-node-2:8000"  # Optional: initial peer for bootstrap
models:
  - model_id: "llama-3"
    policy:
      type: "cache_aware"
      config:
        cache_threshold: 0.7
        balance_abs_threshold: 10
        balance_rel_threshold: 1.5
        eviction_interval_secs: 300
        max_tree_size: 10000
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], str]:
    """Write a configuration file and return its path."""

    def write_file(text: str) -> str:
        path = tmp_path / "mesh.yaml"
        path.write_text(text)
        return str(path)

    return write_file


Write = Callable[[str], str]


def test_the_configuration_of_the_specification_is_read_as_printed(write: Write) -> None:
    """Its two sections, put together in one file, give what they say."""
    settings = load_settings(write(SPECIFICATION), environment={}, flags={})

    assert settings.mesh == MeshSettings(
        enabled=True,
        self_name="router-node-1",
        self_addr="0.0.0.0:8000",
        init_peer=("router-node-2:8000",),
    )
    assert settings.models == (
        ModelSettings(
            model_id="llama-3",
            policy=PolicySettings(
                type="cache_aware",
                config={
                    "cache_threshold": 0.7,
                    "balance_abs_threshold": 10,
                    "balance_rel_threshold": 1.5,
                    "eviction_interval_secs": 300,
                    "max_tree_size": 10000,
                },
            ),
        ),
    )


def test_the_text_of_a_policys_settings_does_not_depend_on_their_order() -> None:
    """Nodes with the same file in another order publish the same text."""
    one = PolicySettings(type="p", config={"a": 1, "b": "é"})
    other = PolicySettings(type="p", config={"b": "é", "a": 1})

    assert '{"a":1,"b":"é"}' == one.config_text() == other.config_text()


def test_models_and_limits_are_the_nodes_defaults(write: Write) -> None:
    """A limit without a key is the global one."""
    path = write(
        "models: [{model_id: a, policy: {type: cache_aware}}]\n"
        "limits: [{limit_per_second: 5}, {key: alice, limit_per_second: 0}]"
    )

    settings = load_settings(path, environment={}, flags={})

    assert (
        ConfiguredDefaults(policies={"a": ("cache_aware", "{}")}, limits={"global": 5, "alice": 0})
        == settings.defaults()
    )


def test_nothing_configured_is_a_node_on_loopback() -> None:
    """The defaults listen on loopback and have no peers."""
    mesh = load_settings(environment={}, flags={}).mesh

    assert ("127.0.0.1:8000", (), True) == (mesh.self_addr, mesh.init_peer, mesh.enabled)


def test_peers_may_be_a_list(write: Write) -> None:
    """`init_peer` takes one address or several."""
    path = write('mesh: {init_peer: ["a:1", "b:2"]}')

    assert ("a:1", "b:2") == load_settings(path, environment={}, flags={}).mesh.init_peer


def test_the_environment_wins_over_the_file(write: Write) -> None:
    """Each variable replaces the value of its key, and the others stay."""
    path = write('mesh: {self_name: "file", zone: "z1", auth: {tokens_file: "/file"}}')
    environment = {
        "MESH_SELF_NAME": "environment",
        "MESH_AUTH_TOKENS_FILE": "/environment",
        "MESH_INIT_PEER": "a:1, b:2",
        "MESH_ENABLED": "false",
        "MESH_FULL_MESH_THRESHOLD": "5",
        "MESH_GOSSIP_PROBE_INTERVAL_S": "0.75",
        "MESH_RATE_LIMIT_PARTITION_MODE": "closed",
    }

    mesh = load_settings(path, environment=environment, flags={}).mesh

    assert "environment" == mesh.self_name
    assert "/environment" == mesh.auth.tokens_file
    assert ("a:1", "b:2") == mesh.init_peer
    assert mesh.enabled is False
    assert 5 == mesh.full_mesh_threshold
    assert 0.75 == mesh.gossip.probe_interval_s
    assert "closed" == mesh.rate_limit.partition_mode
    assert "z1" == mesh.zone


def test_flags_win_over_the_environment_and_the_file(write: Write) -> None:
    """The value of a flag is the one that counts."""
    path = write('mesh: {self_name: "file", init_peer: "file:1"}')
    environment = {"MESH_SELF_NAME": "environment", "MESH_INIT_PEER": "environment:1"}
    flags = {"mesh.self_name": "flag", "mesh.init_peer": ["flag:1"]}

    mesh = load_settings(path, environment=environment, flags=flags).mesh

    assert ("flag", ("flag:1",)) == (mesh.self_name, mesh.init_peer)


def test_an_empty_variable_is_unset(write: Write) -> None:
    """What a compose file hands over without a value changes nothing."""
    path = write('mesh: {self_name: "file"}')

    mesh = load_settings(path, environment={"MESH_SELF_NAME": ""}, flags={}).mesh

    assert "file" == mesh.self_name


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("mash: {}", "mash: unknown key"),
        ("mesh: {self_nmae: a}", "mesh.self_nmae: unknown key"),
        ("mesh: {auth: {token_file: a}}", "mesh.auth.token_file: unknown key"),
        ("mesh: {gossip: {probe_s: 1}}", "mesh.gossip.probe_s: unknown key"),
        ("mesh: {self_name: 1}", "mesh.self_name: expected text, got an integer"),
        ("mesh: {enabled: 1}", "mesh.enabled: expected a boolean, got an integer"),
        ("mesh: {init_peer: [1]}", "mesh.init_peer[0]: expected text, got an integer"),
        ("mesh: {init_peer: host}", "mesh.init_peer[0]: 'host' is no address"),
        ("mesh: {init_peer: 'host:0'}", "mesh.init_peer[0]: 'host:0' has no port"),
        ("mesh: {self_addr: '8000'}", "mesh.self_addr: '8000' is no address"),
        ("mesh: {self_addr: 'a:70000'}", "mesh.self_addr: 'a:70000' is no address"),
        ("mesh: {self_name: ''}", "mesh.self_name: must not be empty"),
        ("mesh: {cluster_name: ''}", "mesh.cluster_name: must not be empty"),
        ("mesh: {full_mesh_threshold: 0}", "mesh.full_mesh_threshold: must be at least 1"),
        ("mesh: {gossip: {probe_interval_s: -1}}", "mesh.gossip: probe_interval_s must be over 0"),
        (
            "mesh: {rate_limit: {partition_mode: ajar}}",
            "mesh.rate_limit: partition_mode must be one of static, open, closed, got 'ajar'",
        ),
        (
            "mesh: {rate_limit: {mandate_s: 2}}",
            "mesh.rate_limit: mandate_s must be 0.1 to 0.9, got 2",
        ),
        ("mesh:", "mesh: expected an object, got nothing"),
        ("models: [{model_id: a}]", "models[0].policy: missing"),
        ("models: [{model_id: a, policy: {typo: b}}]", "models[0].policy.typo: unknown key"),
        ("models: [{model_id: '', policy: {type: a}}]", "models[0].model_id: must not be empty"),
        ("models: [{model_id: a, policy: {type: ''}}]", "models[0].policy.type: must not be"),
        (
            "models: [{model_id: a, policy: {type: cache_aware, config: {treshold: 1}}}]",
            "models[0].policy.config.treshold: unknown key",
        ),
        (
            "models: [{model_id: a, policy: {type: cache_aware, config: {max_tree_size: 1.5}}}]",
            "models[0].policy.config.max_tree_size: expected an integer, got a number",
        ),
        (
            "models: [{model_id: a, policy: {type: cache_aware, config: {cache_threshold: 7}}}]",
            "models[0].policy.config.cache_threshold: 7 is out of its range",
        ),
        (
            "models: [{model_id: a, policy: {type: cache_aware, config: {since: 2026-01-01}}}]",
            "models[0].policy.config: cannot be JSON",
        ),
        (
            "models: [{model_id: a, policy: {type: cache_aware, config: {ratio: .nan}}}]",
            "models[0].policy.config: cannot be JSON",
        ),
        (
            "models: [{model_id: a, policy: {type: weighted}}]",
            (
                "models[0].policy.type: must be one of cache_aware, consistent_hash, "
                "expected_time, least_loaded, power_of_two, random, rendezvous, round_robin, "
                "got 'weighted'"
            ),
        ),
        (
            (
                "models: [{model_id: a, policy: {type: cache_aware}}, "
                "{model_id: a, policy: {type: cache_aware}}]"
            ),
            "models[1].model_id: 'a' is given twice",
        ),
        ("limits: [{key: a}]", "limits[0].limit_per_second: missing"),
        ("limits: [{limit_per_second: -1}]", "limits[0]: limit_per_second must be from 0"),
        ("limits: [{limit_per_second: 1.5}]", "limits[0].limit_per_second: expected an integer"),
        ("limits: [{limit_per_second: true}]", "limits[0].limit_per_second: expected an integer"),
        ("limits: [{key: '', limit_per_second: 1}]", "limits[0]: key must"),
        (f"limits: [{{key: {'k' * 1020}, limit_per_second: 1}}]", "limits[0]: "),
        (
            "limits: [{limit_per_second: 1}, {key: global, limit_per_second: 2}]",
            "limits[1].key: 'global' is given twice",
        ),
        ("mesh: {zone: a, zone: b}", "the key 'zone' is given twice"),
        ("mesh: {", "is no valid YAML"),
        ("- mesh", "expected sections"),
    ],
)
def test_a_mistake_in_the_file_is_named_with_its_full_path(
    write: Write, text: str, named: str
) -> None:
    """Unknown keys, wrong types and impossible values say where they are."""
    with pytest.raises(ConfigError) as caught:
        load_settings(write(text), environment={}, flags={})

    assert named in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "value", "named"),
    [
        ("MESH_SELF_NMAE", "a", "MESH_SELF_NMAE: unknown variable"),
        ("MESH_ENABLED", "perhaps", "MESH_ENABLED: expected true or false, got 'perhaps'"),
        ("MESH_FULL_MESH_THRESHOLD", "ten", "MESH_FULL_MESH_THRESHOLD: expected an integer"),
        ("MESH_GOSSIP_PROBE_INTERVAL_S", "x", "MESH_GOSSIP_PROBE_INTERVAL_S: expected a number"),
        ("MESH_GOSSIP_PROBE_INTERVAL_S", "nan", "(from MESH_GOSSIP_PROBE_INTERVAL_S)"),
    ],
)
def test_a_mistake_in_the_environment_names_the_variable(
    variable: str, value: str, named: str
) -> None:
    """What a variable cannot mean is an error that names it."""
    with pytest.raises(ConfigError) as caught:
        load_settings(environment={variable: value}, flags={})

    assert named in str(caught.value)


def test_variables_that_are_not_settings_are_left_alone() -> None:
    """Token variables belong to `auth`, and Kubernetes sets some for a service called mesh."""
    environment = {
        "MESH_TOKENS": "a",
        "MESH_PEER_TOKEN": "b",
        "MESH_SERVICE_HOST": "10.0.0.1",
        "MESH_SERVICE_PORT_HTTP": "80",
        "MESH_PORT": "tcp://10.0.0.1:80",
        "MESH_PORT_80_TCP_ADDR": "10.0.0.1",
        "MESH_HEADLESS_SERVICE_HOST": "10.0.0.1",
    }

    assert load_settings(environment={}, flags={}) == load_settings(
        environment=environment, flags={}
    )


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    """A file that is not there is one clear message."""
    path = tmp_path / "absent.yaml"

    with pytest.raises(ConfigError, match=r"cannot read .*absent\.yaml: No such file"):
        load_settings(str(path), environment={}, flags={})


def test_no_setting_holds_a_token_itself() -> None:
    """Tokens come from files named in the settings, or from variables of their own."""
    files = {"mesh.auth.tokens_file", "mesh.auth.peer_token_file", "mesh.nats.token_file"}
    assert files == {path for path in settings_paths() if "auth" in path or "token" in path}


@pytest.mark.parametrize(
    ("environment", "flags"),
    [
        ({"MESH_GOSSIP_PROFILE": "wan"}, {}),
        ({"MESH_GOSSIP_PROFILE": "local"}, {"mesh.gossip_profile": "wan"}),
    ],
    ids=["variable", "flag over it"],
)
def test_a_gossip_profile_is_put_under_what_is_set_one_by_one(
    environment: dict[str, str], flags: dict[str, str]
) -> None:
    """The profile's timing, but for the settings that are named."""
    environment["MESH_GOSSIP_HEAL_INTERVAL_S"] = "7.5"
    gossip = load_settings(environment=environment, flags=flags).mesh.gossip

    assert attrs.evolve(GossipConfig.wan(), heal_interval_s=7.5) == gossip


@pytest.mark.parametrize("profile", ["moon", "", "WAN", 3, ["wan"]])
def test_a_gossip_profile_that_there_is_not_is_refused(profile: object) -> None:
    """With the words that there are, or the kind that is wanted."""
    with pytest.raises(ConfigError, match="gossip_profile"):
        load_settings(environment={}, flags={"mesh.gossip_profile": profile})
