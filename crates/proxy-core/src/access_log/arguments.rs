//! Arguments of the operators that take more than a name: alternatives in JSON, the host in place
//! of a server name, the length of an address's prefix.

use super::command::{Command, HostName, Op, ServerName};
use super::parse;
use crate::config::Value;
use crate::json;

/// How deep alternatives may hold alternatives.
const DEEPEST: usize = 8;

/// `COALESCE({"operators": [..]})`: an entry is an operator's name, or an object with `command`,
/// `param` and `max_length`.
pub(super) fn coalesce(args: &str, depth: usize) -> Result<Command, String> {
    let bad = |reason: String| format!("`%COALESCE%`: {reason}");
    if depth == DEEPEST {
        return Err(bad("nested too deep".into()));
    }
    let value = json::parse(args.as_bytes()).map_err(|error| bad(error.to_string()))?;
    let Value::Struct(fields) = &value else {
        return Err(bad("an object is expected".into()));
    };
    if let Some(other) = fields.keys().find(|key| &***key != "operators") {
        return Err(bad(format!("`{other}` is not known")));
    }
    let Some(Value::List(entries)) = fields.get("operators") else {
        return Err(bad("`operators` must be a list".into()));
    };
    if entries.is_empty() {
        return Err(bad("at least one operator is required".into()));
    }
    let entries = entries.iter().map(|entry| alternative(entry, depth));
    let all: Result<Vec<Op>, String> = entries.collect();
    Ok(Command::Coalesce(all.map_err(bad)?))
}

fn alternative(entry: &Value, depth: usize) -> Result<Op, String> {
    let fields = match entry {
        Value::String(name) => {
            let command = parse::nested(name, None, depth + 1)?;
            return Ok(Op::Command(command, None));
        }
        Value::Struct(fields) => fields,
        _ => return Err("an operator is a name or an object".into()),
    };
    let known = ["command", "param", "max_length"];
    if let Some(other) = fields.keys().find(|key| !known.contains(&&***key)) {
        return Err(format!("`{other}` is not known"));
    }
    let Some(name) = fields.get("command").and_then(Value::as_str) else {
        return Err("`command` must be a text".into());
    };
    let param = match fields.get("param") {
        None => None,
        Some(Value::String(param)) => Some(&**param),
        Some(_) => return Err("`param` must be a text".into()),
    };
    let limit = match fields.get("max_length") {
        None => None,
        Some(Value::Number(n)) if n.fract() == 0.0 && (1.0..=1e9).contains(n) => Some(*n as usize),
        Some(_) => return Err("`max_length` must be a positive number".into()),
    };
    let command = parse::nested(name, param, depth + 1)?;
    Ok(Op::Command(command, limit))
}

/// `REQUESTED_SERVER_NAME(X:Y)`: X says which of SNI and host, Y which host.
pub(super) fn server_name(args: &str) -> Result<Command, String> {
    let (which, host) = args.split_once(':').unwrap_or((args, ""));
    let which = match which {
        "" | "SNI_ONLY" => ServerName::SniOnly,
        "SNI_FIRST" => ServerName::SniFirst,
        "HOST_FIRST" => ServerName::HostFirst,
        other => {
            return Err(format!(
                "`{other}`: SNI_ONLY, SNI_FIRST or HOST_FIRST expected"
            ));
        }
    };
    let host = match host {
        "HOST" => HostName::Host,
        "ORIG" => HostName::Original,
        "" | "ORIG_OR_HOST" => HostName::OriginalOrHost,
        other => return Err(format!("`{other}`: HOST, ORIG or ORIG_OR_HOST expected")),
    };
    Ok(Command::ServerName(which, host))
}

/// The length of a prefix: 0 to 128 bits.
pub(super) fn prefix(args: &str) -> Result<u8, String> {
    let length = args.parse().ok().filter(|length| *length <= 128);
    length.ok_or_else(|| format!("`{args}`: a prefix has 0 to 128 bits"))
}

#[cfg(test)]
mod tests {
    use crate::access_log::Template;

    #[test]
    fn bad_arguments_are_named() {
        for (format, word) in [
            (r#"%COALESCE([])%"#, "an object is expected"),
            (r#"%COALESCE({"operators":[]})%"#, "at least one"),
            (r#"%COALESCE({"operators":["NOPE"]})%"#, "NOPE"),
            (
                r#"%COALESCE({"operators":[{"command":"REQ"}]})%"#,
                "needs an argument",
            ),
            (
                r#"%COALESCE({"operators":[{"command":"REQ","param":"a","max_length":0}]})%"#,
                "max_length",
            ),
            (r#"%COALESCE({"operators":["PROTOCOL"],"x":1})%"#, "`x`"),
            ("%REQUESTED_SERVER_NAME(X)%", "SNI_ONLY"),
            ("%REQUESTED_SERVER_NAME(SNI_FIRST:X)%", "ORIG_OR_HOST"),
            ("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(129)%", "0 to 128"),
            ("%DOWNSTREAM_REMOTE_ADDRESS(24)%", "takes no arguments"),
            ("%QUERY_PARAMS(DECODED)%", "ORIG"),
            ("%RESP(x:5)%", "no header name"),
            ("%REQ(x y)%", "no header name"),
        ] {
            let error = Template::parse(format).unwrap_err().to_string();
            assert!(error.contains(word), "{format}: {error}");
        }
    }
}
