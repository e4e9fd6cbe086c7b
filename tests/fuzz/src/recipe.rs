//! Configurations that are mostly right, which bytes alone hardly ever are: each byte is a line.

/// What a recipe begins with: no text does (RFC 3629, section 1).
pub const RECIPE: u8 = 0xff;

/// Steps that are taken: more of the same is only slower.
const LONGEST: usize = 100;

/// Lines; each `#` is the next byte as a number.
const LINES: [&str; 45] = [
    "[[service]]\nname = \"s#\"\nlisten = \"tcp://192.0.2.#:443\"",
    "[[service]]\nname = \"s#\"\nlisten = \"udp://[2001:db8::#]:53\"",
    "[[service.backend]]\naddress = \"10.0.0.#:8443\"",
    "[[service.backend]]\naddress = \"10.0.0.#\"",
    "[[service.backend]]\naddress = \"[fd00::#]:53\"",
    "[[service.backend]]\naddress = \"fd00::#\"",
    "weight = #",
    "draining = {}",
    "draining = { remove = true }",
    "draining = { until = \"20#-01-31T12:00:00Z\" }",
    "draining = { until = \"2030-01-31T12:00:#Z\", remove = true }",
    "mode = \"l2\"",
    "mode = \"nat\"",
    "mode = \"ipip\"",
    "mode = \"gue\"",
    "encap-checksum = true",
    "echo = false",
    "on-down = \"keep\"",
    "on-down = \"rehash\"",
    "announce = \"none\"",
    "announce = \"interface\"",
    "idle-timeout = \"#m\"",
    "idle-timeout = \"1h #s #ms\"",
    "tracking = \"always\"",
    "tracking = \"never\"",
    "tracking = \"adaptive\"",
    "ring-size = 251",
    "ring-size = 4093",
    "check = \"tcp\"",
    "check = \"tcp:port=#,interval=#s\"",
    "check = \"http:/#,rise=#\"",
    "check = \"none\"",
    "[service.check]\nkind = \"tcp\"",
    "[service.check]\nkind = \"http\"\npath = \"/#\"",
    "[defaults]",
    "[defaults.check]\nkind = \"http\"\npath = \"/\"",
    "method = \"HEAD\"\nhost = \"h#\"",
    "expect = \"2#-399\"",
    "interval = \"#s\"",
    "timeout = \"#ms\"",
    "rise = #",
    "fall = #",
    "port = #",
    "[agent]\nencap-source = [\"10.9.#.0/24\"]",
    "[agent]\ninterfaces = [\"eth#\", { name = \"eth#\", mode = \"generic\" }]\nmetrics = \"127.0.0.1:#\"",
];

/// Writes the configuration.
pub(crate) fn cook(steps: &[u8]) -> String {
    let (mut text, mut steps) = (String::new(), steps.iter().take(LONGEST));
    while let Some(step) = steps.next() {
        for part in LINES[usize::from(*step) % LINES.len()].split_inclusive('#') {
            text += part.trim_end_matches('#');
            if part.ends_with('#') {
                text += &steps.next().unwrap_or(&0).to_string();
            }
        }
        text.push('\n');
    }
    text
}
