//! Every map and program name, once: used by the program, the agent, the tests and the documents.
//! The kernel keeps 15 characters.

/// XDP program that balances; attached to interfaces.
pub const BALANCE: &str = "lb_balance";
/// XDP program that answers `lb explain`: the same decision, writing nothing.
pub const EXPLAIN_PROGRAM: &str = "lb_explain";
/// XDP program that goes on with what seldom comes.
pub const DETOUR: &str = "lb_detour";
/// The same for [`EXPLAIN_PROGRAM`].
pub const DETOUR_DRY: &str = "lb_detour_dry";
/// XDP program that puts packets into others.
pub const WRAP: &str = "lb_wrap";
/// The same for [`EXPLAIN_PROGRAM`].
pub const WRAP_DRY: &str = "lb_wrap_dry";
/// XDP program that tells who sends too much.
pub const ANSWER: &str = "lb_answer";
/// The same for [`EXPLAIN_PROGRAM`].
pub const ANSWER_DRY: &str = "lb_answer_dry";
/// XDP program that goes on with fragments.
pub const FRAGMENT: &str = "lb_fragment";
/// The same for [`EXPLAIN_PROGRAM`].
pub const FRAGMENT_DRY: &str = "lb_fragment_dry";
/// XDP program that goes on with what may belong to a range of ports.
pub const WIDE: &str = "lb_wide";
/// The same for [`EXPLAIN_PROGRAM`].
pub const WIDE_DRY: &str = "lb_wide_dry";
/// XDP program that takes packets out of others, for backends. Loaded by `lb decap` alone.
pub const DECAP_PROGRAM: &str = "lb_decap";
/// XDP program that passes everything: the far end of a veth needs one.
pub const PASS: &str = "lb_pass";

/// Services by their listening endpoint.
pub const SERVICES: &str = "SERVICES";
/// Ring slots, sixteen a line.
pub const RINGS: &str = "RINGS";
/// Backends, in blocks that services point to.
pub const BACKENDS: &str = "BACKENDS";
/// NAT backends by their endpoint, for the way back.
pub const REVERSE: &str = "REVERSE";
/// Ranges of ports by address.
pub const RANGES: &str = "RANGES";
/// Which sources may be in `REVERSE`, and which addresses in `RANGES`.
pub const FILTER: &str = "FILTER";
/// The routes back to clients.
pub const ROUTES: &str = "ROUTES";
/// MAC addresses of on-link clients.
pub const NEIGHBOURS: &str = "NEIGHBOURS";
/// Established flows that need an entry.
pub const FLOWS: &str = "FLOWS";
/// Flows of which only the first packet was seen.
pub const EMBRYONIC: &str = "EMBRYONIC";
/// Where the first fragments of datagrams went.
pub const FRAGMENTS: &str = "FRAGMENTS";
/// Packets, bytes and flows of each backend.
pub const COUNTERS: &str = "COUNTERS";
/// Every reason, for each service.
pub const REASONS: &str = "REASONS";
/// Messages to the agent.
pub const EVENTS: &str = "EVENTS";
/// Interfaces that frames may be redirected to.
pub const DEVICES: &str = "DEVICES";
/// How each interface is attached.
pub const INTERFACES: &str = "INTERFACES";
/// Words that steer the program at run time.
pub const SETTINGS: &str = "SETTINGS";
/// Where `lb_explain` leaves its answer.
pub const EXPLAIN: &str = "EXPLAIN";

/// Addresses that answer echo requests.
pub const VIPS: &str = "VIPS";

/// The programs that others go on in. Not adopted: each build has its own, filled before its programs are used.
pub const STAGES: &str = "STAGES";
/// What a program leaves for the one that goes on. Each build has its own, too.
pub const HAND: &str = "HAND";
/// How many packets each CPU may still make itself. Each build has its own, too.
pub const ANSWERS: &str = "ANSWERS";

/// Whom [`DECAP_PROGRAM`] works for.
pub const DECAP: &str = "DECAP";
/// What it did.
pub const DECAP_COUNTS: &str = "DECAP_COUNTS";

/// Every map that is pinned and adopted.
pub const MAPS: [&str; 19] = [
    SERVICES, RINGS, BACKENDS, REVERSE, FILTER, ROUTES, NEIGHBOURS, FLOWS, EMBRYONIC, FRAGMENTS, COUNTERS,
    REASONS, EVENTS, DEVICES, INTERFACES, SETTINGS, EXPLAIN, VIPS, RANGES,
];
/// Those whose size is a power of two, see [`crate::table`].
pub const TWO_CHOICE: [&str; 5] = [SERVICES, REVERSE, NEIGHBOURS, VIPS, RANGES];
/// Every program of the object.
pub const PROGRAMS: [&str; 13] = [
    BALANCE,
    DETOUR,
    WRAP,
    ANSWER,
    FRAGMENT,
    EXPLAIN_PROGRAM,
    DETOUR_DRY,
    WRAP_DRY,
    ANSWER_DRY,
    FRAGMENT_DRY,
    PASS,
    WIDE,
    WIDE_DRY,
];
/// The programs of `STAGES`, in the order of their places.
pub const IN_STAGES: [&str; 10] =
    [DETOUR, WRAP, ANSWER, FRAGMENT, WIDE, DETOUR_DRY, WRAP_DRY, ANSWER_DRY, FRAGMENT_DRY, WIDE_DRY];
