//! What the API answers. Keys are snake_case and stable, units are in their names; what is not known is absent.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `GET /v1/status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StatusView {
    /// The agent.
    pub agent: AgentView,
    /// Interfaces that are attached or should be, by name.
    pub interfaces: Vec<InterfaceView>,
    /// Every service.
    pub services: Vec<ServiceView>,
    /// What needs attention: a sentence each, with its remedy. Empty: nothing does.
    pub attention: Vec<String>,
    /// What the agent had to say when it started, for example that its state file was broken.
    pub messages: Vec<String>,
}

/// The agent itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AgentView {
    /// Version of `lb`.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// `fresh`: loaded the programs; `adopted`: found them running; `upgraded`: replaced them by newer ones.
    pub started: String,
    /// Path of its socket.
    pub socket: String,
    /// Directory of its pinned maps and programs.
    pub pins: String,
}

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct InterfaceView {
    /// Its name.
    pub name: String,
    /// How it was asked for: `auto`, `native` or `generic`.
    pub wanted: String,
    /// How it is attached: `native` or `generic`; absent: it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Why it is not attached, or not in native mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Seconds since the Unix epoch when it was attached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
}

/// `GET /v1/services` answers a list of these, `GET /v1/services/NAME` one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ServiceView {
    /// Its name.
    pub name: String,
    /// Where it listens: `tcp://192.0.2.10:443`.
    pub listen: String,
    /// How packets reach the backends: `nat`, `l2`, `ipip` or `gue`.
    pub mode: String,
    /// `maglev`.
    pub scheduler: String,
    /// Who answers ARP and neighbour discovery: `interface` or `none`.
    pub announce: String,
    /// What happens to flows of a dead backend: `rehash` or `keep`.
    pub on_down: String,
    /// Which flows have table entries: `adaptive`, `always` or `never`.
    pub tracking: String,
    /// Whether outer headers have a checksum: `none` or `udp`.
    #[serde(default)]
    pub encap_checksum: String,
    /// How long a silent flow is remembered, seconds.
    pub idle_timeout_s: u64,
    /// Whether pings of its address are answered.
    pub echo: bool,
    /// Slots of its ring.
    pub ring_size: u32,
    /// Its check in one line, `http:/healthz,interval=2s`; absent: backends count as up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<String>,
    /// How it is.
    pub state: ServiceState,
    /// Why it is not `ok`, a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Interfaces that answer for its address now.
    pub announced_on: Vec<String>,
    /// Its backends, by address.
    pub backends: Vec<BackendView>,
}

/// How a service is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceState {
    /// Every backend that should serve does.
    Ok,
    /// Some backend that should serve does not.
    Degraded,
    /// It has backends, and none serves.
    Down,
    /// It has no backends.
    #[default]
    Empty,
}

impl ServiceState {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Down => "down",
            Self::Empty => "empty",
        }
    }
}

/// A backend of a service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BackendView {
    /// Address and port.
    pub address: String,
    /// Its share among the service's backends; 0 takes no new flows.
    pub weight: u32,
    /// What the operator wants of it.
    pub admin: AdminState,
    /// When the drain ends whatever is left, seconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_deadline: Option<u64>,
    /// The backend is removed when its drain ends.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub remove_when_drained: bool,
    /// Flows with an entry that a draining backend still has, without those that are closing; absent: it does not drain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flows_left: Option<u64>,
    /// What the checks say.
    pub health: HealthState,
    /// Why, for example the error of the last check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_reason: Option<String>,
    /// Since when the health is what it is, seconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// How packets get there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_hop: Option<NextHopView>,
    /// Share of new flows by weight among the backends that can be selected, 0 to 1.
    pub expected_share: f64,
    /// Share of the ring's slots that it has, 0 to 1.
    pub actual_share: f64,
    /// What the kernel counted.
    pub counters: CountersView,
}

/// Administrative state of a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdminState {
    /// Takes new flows when it is up.
    #[default]
    Active,
    /// Keeps its flows, takes no new ones.
    Draining,
}

/// Health of a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthState {
    /// No result yet.
    Unknown,
    /// It answers.
    Up,
    /// It does not.
    Down,
    /// Its service has no check: counts as up.
    #[default]
    Unchecked,
}

impl HealthState {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Down => "down",
            Self::Unchecked => "unchecked",
        }
    }
}

/// The next hop of a backend.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NextHopView {
    /// `resolved`, `resolving` or `failed`.
    pub state: String,
    /// Interface that packets leave through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// MAC address they are sent to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Gateway; absent: the backend is on the link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<String>,
    /// Why it is not resolved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What the kernel counted for a backend or a service, since the maps were made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountersView {
    /// Packets towards backends.
    pub packets: u64,
    /// Bytes of the frames towards backends.
    pub bytes: u64,
    /// New flows.
    pub flows: u64,
    /// Packets back to clients (`nat` only: direct returns are not seen).
    pub back_packets: u64,
    /// Bytes of the frames back to clients.
    pub back_bytes: u64,
}

impl std::ops::AddAssign for CountersView {
    fn add_assign(&mut self, other: Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
        self.flows += other.flows;
        self.back_packets += other.back_packets;
        self.back_bytes += other.back_bytes;
    }
}

/// `GET /v1/stats`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StatsView {
    /// The services, or the one that was asked for.
    pub services: Vec<ServiceStatsView>,
    /// How many packets left for each reason without reaching a service; names of `lb_common::reason::Reason`.
    pub reasons: BTreeMap<String, u64>,
}

/// What the kernel counted for a service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ServiceStatsView {
    /// Its name; from pinned maps alone, where names are not known, where it listens.
    pub name: String,
    /// Its number in the tables.
    pub id: u32,
    /// The sum over its backends.
    pub counters: CountersView,
    /// Its backends.
    pub backends: Vec<BackendStatsView>,
    /// How many packets left for each reason.
    pub reasons: BTreeMap<String, u64>,
}

/// What the kernel counted for a backend.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BackendStatsView {
    /// Address and port.
    pub address: String,
    /// What was counted.
    pub counters: CountersView,
}

/// What a change did, or would do if it is a dry run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PlanView {
    /// Whether anything is different from before.
    pub changed: bool,
    /// Nothing was done: it was only planned.
    pub dry_run: bool,
    /// What happened, in a sentence.
    pub message: String,
    /// What is done, a sentence each, in order.
    pub steps: Vec<String>,
    /// Ring slots that get another backend: new flows on them go elsewhere, established ones stay.
    pub slots_moved: u64,
    /// Ring slots of the services that change.
    pub slots_total: u64,
    /// The same for each service that changes.
    pub services: Vec<ServicePlanView>,
    /// What works but is probably not what is wanted.
    pub warnings: Vec<String>,
}

/// What a change means for a service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ServicePlanView {
    /// Its name.
    pub name: String,
    /// Slots that get another backend.
    pub slots_moved: u64,
    /// Slots of its ring.
    pub slots_total: u64,
    /// Share of new flows that go elsewhere, 0 to 1.
    pub share_moved: f64,
}

/// Body of `POST /v1/explain`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainRequest {
    /// Interface that the packet arrives on; absent: the first that is attached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// The Ethernet frame in hexadecimal.
    pub frame: String,
}

/// Answer of `POST /v1/explain`: what the loaded program does with the frame.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ExplainView {
    /// `pass`, `tx`, `redirect` or `drop`.
    pub verdict: String,
    /// Name of the reason.
    pub reason: String,
    /// What it means.
    pub description: String,
    /// Interface that the frame arrived on.
    pub interface: String,
    /// Interface that it leaves through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<String>,
    /// The service it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Mode of the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Slot of the ring.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<u32>,
    /// The backend that gets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// How the backend was chosen: `ring`, `flow-table`, `embryonic`, `previous` or `fragment`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub how: Option<String>,
    /// The frame as it arrived.
    pub before: FrameView,
    /// The frame as it leaves.
    pub after: FrameView,
}

/// A frame.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FrameView {
    /// Its bytes in hexadecimal.
    pub hex: String,
    /// What it says, in a line.
    pub decoded: String,
}

/// Body of `POST …/backends/ADDR/drain`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DrainRequest {
    /// When the drain ends whatever is left, seconds since the Unix epoch; absent: when the operator says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
    /// The backend is removed when it ends.
    pub remove: bool,
}

/// Body of `PATCH` and `PUT …/backends/ADDR`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BackendRequest {
    /// Its share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<i64>,
}

/// Body of `PUT /v1/interfaces/NAME`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AttachRequest {
    /// `auto`, `native` or `generic`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
}
