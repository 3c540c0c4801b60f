"""Settings: one YAML file, the environment over it, and flags over both.

Rule: a setting has one name. `mesh.auth.tokens_file` in the file is `MESH_AUTH_TOKENS_FILE` in
the environment, and both end in the same field of the same record. What no record knows is an
error that names it, and so is a key given twice.
"""

from __future__ import annotations

import json
import math
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, get_args, get_origin, get_type_hints

import attrs
from attrs import field, frozen

from meshlib import StartupConfig
from meshlib.aio import SrvSeeds, split_address
from meshlib.errors import ConfigError, LocalError
from meshlib.gossip import GossipConfig, GossipProfile
from meshlib.ratelimit import GLOBAL_KEY, LimitRule, LimitSettings, RateLimitConfig
from meshlib.routing import POLICIES, PolicyTypes, PrefixSync, parse_config
from meshlib.state import ConfiguredDefaults, check_identifier
from meshlib_server.access.tls import TlsSettings
from meshlib_server.http.gate import HttpSettings
from meshlib_server.lag import EventLoop
from meshlib_server.logs import LogFormat, LogLevel
from meshlib_server.plugs import EnvoySettings, WorkerSourceSettings
from meshlib_server.structure import StructureError, read_yaml, structure
from meshlib_server.transports import BridgingSettings, NatsSettings, PeerTransport

__all__ = [
    "AuthSettings",
    "DiscoverySettings",
    "LimitEntry",
    "LogSettings",
    "MeshSettings",
    "ModelSettings",
    "PolicySettings",
    "RuleEntry",
    "Settings",
    "StorageSettings",
    "load_settings",
    "settings_paths",
]

ENVIRONMENT_PREFIX: Final = "MESH_"

SECRET_VARIABLES: Final = frozenset({"MESH_TOKENS", "MESH_PEER_TOKEN"})
"""Variables that hold tokens themselves: `auth` reads them, and no file may hold them."""

CLIENT_VARIABLES: Final = frozenset({"MESH_ADDRESS", "MESH_CA_FILE", "MESH_PROFILE", "MESH_TOKEN"})
"""Variables of the commands that ask a node; they may be set where one is served as well."""

_NO_SETTINGS: Final = SECRET_VARIABLES | CLIENT_VARIABLES

_KUBERNETES_LINK = re.compile(
    r"MESH_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)"
)
"""What Kubernetes sets in every pod when a service is named `mesh` or `mesh-something`."""


@frozen(kw_only=True)
class AuthSettings:
    """Where the tokens are kept; never the tokens themselves.

    Args:
        tokens_file: tokens of operators and routers, one on each line.
        peer_token_file: tokens of peers, one on each line; the first is the one presented.
    """

    tokens_file: str | None = None
    peer_token_file: str | None = None


@frozen(kw_only=True)
class StorageSettings:
    """Where this node's state is kept, so that all nodes may be restarted at once.

    Args:
        path: a file of this node alone, in a folder that exists; None: nowhere.
        interval_s: how often what has changed is saved, and how much may be lost when all
            nodes are lost at once; over 0. A save that takes long is made less often.
    """

    path: str | None = None
    interval_s: float = 5.0


@frozen(kw_only=True)
class LogSettings:
    """What is logged, and how.

    Args:
        level: the least level that is logged.
        format: a JSON object on each line, or text for a person.
    """

    level: LogLevel = LogLevel.INFO
    format: LogFormat = LogFormat.JSON


@frozen(kw_only=True)
class DiscoverySettings:
    """Where peers are found, beside those in `init_peer`; asked again for ever.

    Args:
        dns_names: `host:port` each, of names that may have several addresses: such as that of a
            headless service of Kubernetes.
        srv_names: names of services, such as `_mesh._tcp.example.com`, whose SRV records name
            hosts and ports; needs the extra `srv`.
        file: a file with an address on each line; it may come into being later.
        refresh_s: how often they are asked, in seconds, over 0.
    """

    dns_names: tuple[str, ...] = ()
    srv_names: tuple[str, ...] = ()
    file: str | None = None
    refresh_s: float = 30.0


def _prefix_sync(name: str) -> PrefixSync:
    return PrefixSync.named(name)


def _transport(name: str) -> PeerTransport:
    return PeerTransport.named(name)


def _profile(name: str) -> GossipProfile:
    return GossipProfile.named(name)


@frozen(kw_only=True)
class MeshSettings:
    """The `mesh` section.

    Args:
        enabled: False answers 503 on every mesh endpoint, and starts no node.
        self_name: this node's name, which no other node of the cluster may have; the host's
            name when absent.
        self_addr: where to listen, as `host:port`; 0.0.0.0 for every interface.
        advertise_addr: where peers reach this node, when that is not `self_addr`.
        init_peer: peers to join by, as `host:port`; one, or a list.
        discovery: where other peers are found.
        cluster_name: keeps clusters apart.
        region: where the node is, for the sparse topology.
        zone: its availability zone within the region.
        full_mesh_threshold: up to how many nodes each is connected to each.
        prefix_sync: what is replicated of prompts: their `text`, or a `hash` of each 256 characters
            and what is before them.
        auth: where the tokens are kept.
        tls: the certificates of this node and of its peers.
        http: what callers are granted, and how the server ends.
        gossip_profile: the kind of network, from which the timing follows: `lan`, `wan` or
            `local`.
        gossip: the timing of the gossip, where it is to differ from the profile's.
        storage: where the state is kept on disk.
        log: what is logged, and how.
        event_loop: `auto`, `asyncio` or `uvloop`.
        rate_limit: how long owners decide, and what a node does that is cut off.
        startup: what is decided before the node is ready.
        envoy: the port for Envoys.
        worker_sources: where workers are read from.
        transport: what carries frames between the nodes, the same on all: `websocket`, `nats`, or
            `bridged` for both, within a region and between regions.
        nats: where NATS is.
        bridging: the regions and the bridges between them.
    """

    enabled: bool = True
    self_name: str = field(factory=socket.gethostname)
    self_addr: str = "127.0.0.1:8000"
    advertise_addr: str | None = None
    init_peer: tuple[str, ...] = ()
    discovery: DiscoverySettings = DiscoverySettings()
    cluster_name: str = "mesh"
    region: str = ""
    zone: str = ""
    full_mesh_threshold: int = 10
    prefix_sync: PrefixSync = field(default=PrefixSync.TEXT, converter=_prefix_sync)
    auth: AuthSettings = AuthSettings()
    tls: TlsSettings = field(factory=TlsSettings)
    http: HttpSettings = field(factory=HttpSettings)
    storage: StorageSettings = StorageSettings()
    log: LogSettings = LogSettings()
    event_loop: EventLoop = EventLoop.AUTO
    gossip_profile: GossipProfile = field(default=GossipProfile.LAN, converter=_profile)
    gossip: GossipConfig = field(factory=GossipConfig)
    rate_limit: RateLimitConfig = field(factory=RateLimitConfig)
    startup: StartupConfig = field(factory=StartupConfig)
    envoy: EnvoySettings = field(factory=EnvoySettings)
    worker_sources: WorkerSourceSettings = field(factory=WorkerSourceSettings)
    transport: PeerTransport = field(default=PeerTransport.WEBSOCKET, converter=_transport)
    nats: NatsSettings = field(factory=NatsSettings)
    bridging: BridgingSettings = field(factory=BridgingSettings)


@frozen(kw_only=True)
class PolicySettings:
    """The policy of a model.

    Args:
        type: its name, such as `cache_aware`.
        config: its settings, as the policy defines them.
    """

    type: str
    config: dict[str, Any] = field(factory=dict)

    def config_text(self) -> str:
        """Return the settings as the canonical JSON text that policy states carry."""
        return json.dumps(
            self.config,
            sort_keys=True,
            separators=(",", ":"),
            ensure_ascii=False,
            allow_nan=False,
        )


@frozen(kw_only=True)
class ModelSettings:
    """A model and the policy that is its default: in force while nobody has written one.

    Args:
        model_id: the model.
        policy: its policy.
    """

    model_id: str
    policy: PolicySettings


@frozen(kw_only=True)
class LimitEntry:
    """A limit that is the default of its key: in force while nobody has written one.

    Args:
        limit_per_second: units a second for the whole cluster; 0 switches it off.
        key: the rate-limit key; by default the global one.
    """

    limit_per_second: int
    key: str = GLOBAL_KEY


@frozen(kw_only=True)
class RuleEntry:
    """A rule that is the default of its name: in force while nobody has written one.

    Args:
        name: of the rule.
        limits: such as `100000/minute`; all of them hold at once.
        pattern: which keys; None: the name is the pattern.
    """

    name: str
    limits: tuple[str, ...]
    pattern: str | None = None

    def rule(self) -> LimitRule:
        """Return the rule, or raise a LocalError that names the field which cannot be."""
        pattern = self.name if self.pattern is None else self.pattern
        return LimitRule(self.name, pattern=pattern, limits=self.limits)


@frozen(kw_only=True)
class Settings:
    """Everything that is configured.

    Args:
        mesh: the node and its cluster.
        models: the models whose policies this node brings along.
        limits: the limits that it brings along.
        limit_rules: the rules that it brings along.
    """

    mesh: MeshSettings = MeshSettings()
    models: tuple[ModelSettings, ...] = ()
    limits: tuple[LimitEntry, ...] = ()
    limit_rules: tuple[RuleEntry, ...] = ()

    def defaults(self) -> ConfiguredDefaults:
        """Return what is in force for what nobody has written.

        Raises:
            LocalError: something in it cannot be, or all of it takes more than 256 KiB.
        """
        return ConfiguredDefaults(
            policies={
                model.model_id: (model.policy.type, model.policy.config_text())
                for model in self.models
            },
            limits={limit.key: limit.limit_per_second for limit in self.limits},
            rules=[entry.rule() for entry in self.limit_rules],
        )


def settings_paths() -> dict[str, Any]:
    """Return the dotted path of each single setting of the `mesh` section, with its type."""
    return dict(_leaves(MeshSettings, "mesh"))


def _leaves(record: type, prefix: str) -> Iterator[tuple[str, Any]]:
    hints = get_type_hints(record)
    for name in attrs.fields_dict(record):
        kind = hints[name]
        if attrs.has(kind):
            yield from _leaves(kind, f"{prefix}.{name}")
        else:
            yield f"{prefix}.{name}", kind


def load_settings(
    config_path: str | None = None,
    *,
    environment: Mapping[str, str],
    flags: Mapping[str, Any],
) -> Settings:
    """Load the file, put the environment over it and the flags over both.

    Args:
        config_path: a YAML file; None for none.
        environment: variables; those that begin with `MESH_` are read, empty ones are unset.
        flags: dotted path to value, as flags gave it.

    Raises:
        ConfigError: an unreadable file, an unknown or repeated key, a value of a wrong type or
            out of its range, with the path and where it came from.
    """
    tree = {} if config_path is None else read_yaml(config_path)
    _listify_peers(tree)
    sources = _overlay_environment(tree, environment)
    for path, value in flags.items():
        _put(tree, path, value)
        sources[path] = "a flag"
    _fill_in_profile(tree)
    try:
        settings = structure(tree, Settings)
    except StructureError as error:
        raise ConfigError(_render(error, config_path, sources)) from None
    _check(settings.mesh)
    for index, model in enumerate(settings.models):
        _check_model(model, f"models[{index}]")
    _check_limits(settings.limits)
    for index, entry in enumerate(settings.limit_rules):
        try:
            entry.rule()
        except LocalError as error:
            raise ConfigError(f"limit_rules[{index}].{error}") from None
    _check_once([entry.name for entry in settings.limit_rules], "limit_rules[{}].name")
    _check_once([model.model_id for model in settings.models], "models[{}].model_id")
    try:
        settings.defaults()
    except LocalError as error:
        raise ConfigError(f"models, limits and limit_rules: {error}") from None
    return settings


def _listify_peers(tree: dict[str, Any]) -> None:
    """Let `init_peer` be one address, as the specification writes it."""
    mesh = tree.get("mesh")
    if type(mesh) is dict and type(mesh.get("init_peer")) is str:
        mesh["init_peer"] = [mesh["init_peer"]]


def _fill_in_profile(tree: dict[str, Any]) -> None:
    """Put the timing of the profile under what is set of it one by one.

    What is no profile, or no section, is left for `structure` to refuse.
    """
    mesh = tree.get("mesh")
    if type(mesh) is not dict or type(mesh.get("gossip_profile")) is not str:
        return
    if mesh["gossip_profile"] not in set(GossipProfile):
        return
    given = mesh.get("gossip", {})
    if type(given) is dict:
        profile = attrs.asdict(GossipConfig.of(mesh["gossip_profile"]))
        mesh["gossip"] = {**profile, **given}


def _overlay_environment(tree: dict[str, Any], environment: Mapping[str, str]) -> dict[str, str]:
    """Put the variables into the tree, and return where each path got its value."""
    paths = settings_paths()
    by_variable = {
        ENVIRONMENT_PREFIX + path.removeprefix("mesh.").replace(".", "_").upper(): path
        for path in paths
    }
    sources: dict[str, str] = {}
    for variable, text in sorted(environment.items()):
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable in _NO_SETTINGS:
            continue
        path = by_variable.get(variable)
        if path is None:
            if _KUBERNETES_LINK.fullmatch(variable):
                continue
            raise ConfigError(f"{variable}: unknown variable; see the table of settings")
        if text:
            _put(tree, path, _parse_variable(text, paths[path], variable))
            sources[path] = variable
    return sources


def _parse_variable(text: str, kind: Any, variable: str) -> Any:
    """Read a variable as the type of its setting."""
    if get_origin(kind) is tuple:
        return [part.strip() for part in text.split(",") if part.strip()]
    kinds = get_args(kind) or (kind,)
    if any(issubclass(kind, str) for kind in kinds):  # words of a fixed list are text too
        return text
    if bool in kinds:
        words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        if text.lower() not in words:
            raise ConfigError(f"{variable}: expected true or false, got {text!r}")
        return words[text.lower()]
    number_kind = int if int in kinds else float
    try:
        return number_kind(text)
    except ValueError:
        wanted = "an integer" if number_kind is int else "a number"
        raise ConfigError(f"{variable}: expected {wanted}, got {text!r}") from None


def _put(tree: dict[str, Any], path: str, value: Any) -> None:
    """Set one path; what is in the way and no section is left for `structure` to refuse."""
    *sections, name = path.split(".")
    for section in sections:
        inner = tree.setdefault(section, {})
        if type(inner) is not dict:
            return
        tree = inner
    tree[name] = value


def _render(error: StructureError, config_path: str | None, sources: Mapping[str, str]) -> str:
    lines = []
    for path, message in error.problems:
        source = sources.get(path.split("[")[0], config_path)
        lines.append(f"{path}: {message}" + (f" (from {source})" if source else ""))
    return "; ".join(lines)


def _check(mesh: MeshSettings) -> None:
    """Check what no type says, with the path of what is wrong."""
    for name in ("self_addr", "advertise_addr"):
        address = getattr(mesh, name)
        if address is not None:
            _check_address(address, f"mesh.{name}")
    for index, peer in enumerate(mesh.init_peer):
        _check_address(peer, f"mesh.init_peer[{index}]", is_dialled=True)
    _check_discovery(mesh.discovery)
    _check_envoy(mesh.envoy)
    mesh.nats.check(mesh.transport)
    mesh.bridging.check(mesh.transport, region=mesh.region, peers=mesh.init_peer)
    for section in ("discovery", "worker_sources"):
        refresh_s = getattr(mesh, section).refresh_s
        if not 0 < refresh_s < math.inf:
            raise ConfigError(f"mesh.{section}.refresh_s: must be over 0, got {refresh_s}")
    if not mesh.self_name:
        raise ConfigError("mesh.self_name: must not be empty")
    if not mesh.cluster_name:
        raise ConfigError("mesh.cluster_name: must not be empty")
    storage = mesh.storage
    if storage.path == "":
        raise ConfigError("mesh.storage.path: must not be empty")
    if not 0 < storage.interval_s < math.inf:
        raise ConfigError(f"mesh.storage.interval_s: must be over 0, got {storage.interval_s}")
    if mesh.full_mesh_threshold < 1:
        raise ConfigError(
            f"mesh.full_mesh_threshold: must be at least 1, got {mesh.full_mesh_threshold}"
        )


def _check_discovery(discovery: DiscoverySettings) -> None:
    for index, name in enumerate(discovery.dns_names):
        _check_address(name, f"mesh.discovery.dns_names[{index}]", is_dialled=True)
    for index, name in enumerate(discovery.srv_names):
        try:
            SrvSeeds([name])
        except ConfigError as error:
            raise ConfigError(f"mesh.discovery.srv_names[{index}]: {error}") from None
    if discovery.file == "":
        raise ConfigError("mesh.discovery.file: must not be empty")


def _check_envoy(envoy: EnvoySettings) -> None:
    if envoy.listen is not None:
        _check_address(envoy.listen, "mesh.envoy.listen")
    if envoy.rules == "":
        raise ConfigError("mesh.envoy.rules: must not be empty")
    if envoy.rules is not None and envoy.listen is None:
        raise ConfigError("mesh.envoy.rules: nothing is asked of them without mesh.envoy.listen")
    for name in ("key_file", "ca_file"):
        if getattr(envoy, name) is not None and envoy.certificate_file is None:
            raise ConfigError(f"mesh.envoy.{name}: needs mesh.envoy.certificate_file")


def _check_limits(limits: Sequence[LimitEntry]) -> None:
    for index, limit in enumerate(limits):
        try:
            ConfiguredDefaults(limits={limit.key: limit.limit_per_second})
            check_identifier("key", LimitSettings.config_key(limit.key))
        except LocalError as error:
            raise ConfigError(f"limits[{index}]: {error}") from None
    _check_once([limit.key for limit in limits], "limits[{}].key")


def _check_once(names: Sequence[str], path: str) -> None:
    for index, name in enumerate(names):
        if name in names[:index]:
            raise ConfigError(f"{path.format(index)}: {name!r} is given twice")


def _check_model(model: ModelSettings, path: str) -> None:
    """Check what will be in force: a mistake is told at the start and not by odd routing."""
    for name, text in (("model_id", model.model_id), ("policy.type", model.policy.type)):
        if not text:
            raise ConfigError(f"{path}.{name}: must not be empty")
    try:
        model.policy.config_text()
    except (TypeError, ValueError) as error:  # YAML has dates and NaN, JSON has neither
        raise ConfigError(f"{path}.policy.config: cannot be JSON: {error}") from None
    known = PolicyTypes().names()  # a service has none of its own
    if model.policy.type not in known:
        raise ConfigError(
            f"{path}.policy.type: must be one of {', '.join(known)}, got {model.policy.type!r}"
        )
    config = model.policy.config
    try:
        structure(config, POLICIES[model.policy.type])
    except StructureError as error:
        problems = [(f"{path}.policy.config.{name}", text) for name, text in error.problems if name]
        if problems:  # and not the ranges, which are of no one field there, and are told below
            raise ConfigError(str(StructureError(problems))) from None
    understood = parse_config(POLICIES[model.policy.type], model.policy.config_text())
    for name, value in config.items():
        if getattr(understood, name) != value:
            raise ConfigError(f"{path}.policy.config.{name}: {value} is out of its range")


def _check_address(address: str, path: str, *, is_dialled: bool = False) -> None:
    try:
        _, port = split_address(address)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    if is_dialled and port == 0:
        raise ConfigError(f"{path}: {address!r} has no port that could be dialled")
