//! The trace in request headers: B3 in many headers or in one, and W3C's `traceparent`.

use super::SpanContext;
use crate::headers::HeadersMut;
use crate::matcher::Headers;

/// In which form the trace came and goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `x-b3-traceid` and its kin.
    B3,
    /// `b3`.
    B3Single,
    /// `traceparent` and `tracestate`.
    W3c,
    /// `traceparent` beside B3; `tracestate` stays as it came.
    W3cParent,
}

/// What a request says of its trace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Incoming {
    /// The caller's span, where it names one.
    pub context: Option<SpanContext>,
    /// Whether the caller decided, and what.
    pub sampled: Option<bool>,
    /// `b3` was used.
    pub single: bool,
}

fn text<'h, H: Headers + ?Sized>(headers: &'h H, name: &str) -> Option<&'h str> {
    std::str::from_utf8(headers.first(name)?).ok()
}

/// Hex digits of one of the widths, in either letter case.
fn hex(text: &str, widths: &[usize]) -> Option<u128> {
    let digits = text.bytes().all(|b| b.is_ascii_hexdigit());
    (digits && widths.contains(&text.len()))
        .then(|| u128::from_str_radix(text, 16).ok())
        .flatten()
}

fn narrow(number: u128) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

/// Reads B3 headers. `None` = malformed: such a request has no span.
#[must_use]
pub fn extract_b3<H: Headers + ?Sized>(headers: &H) -> Option<Incoming> {
    if let Some(line) = headers.first("b3") {
        return single(std::str::from_utf8(line).ok()?);
    }
    let sampled = match text(headers, "x-b3-sampled") {
        Some("1" | "true") => Some(true),
        Some(_) => Some(false),
        None => None,
    };
    let mut found = Incoming {
        sampled,
        ..Incoming::default()
    };
    let (Some(trace), Some(span)) = (headers.first("x-b3-traceid"), headers.first("x-b3-spanid"))
    else {
        return Some(found);
    };
    let trace = std::str::from_utf8(trace).ok()?;
    let span = std::str::from_utf8(span).ok()?;
    let parent = match headers.first("x-b3-parentspanid") {
        Some(parent) if !parent.is_empty() => hex(std::str::from_utf8(parent).ok()?, &[16])?,
        _ => 0,
    };
    found.context = Some(b3_context(trace, span, parent)?);
    Some(found)
}

fn b3_context(trace: &str, span: &str, parent: u128) -> Option<SpanContext> {
    let trace_id = hex(trace, &[16, 32])?;
    Some(SpanContext {
        trace_id,
        // As in Envoy: a high half of zeros is none.
        narrow: trace_id >> 64 == 0,
        span_id: narrow(hex(span, &[16])?),
        parent_id: narrow(parent),
        remote_parent: true,
        ..SpanContext::default()
    })
}

/// `{trace}-{span}[-{sampled}[-{parent}]]`, or the decision alone.
fn single(line: &str) -> Option<Incoming> {
    let decision = |text: &str| match text {
        "1" | "d" => Some(true),
        "0" => Some(false),
        _ => None,
    };
    if line.len() == 1 {
        return Some(Incoming {
            context: None,
            sampled: Some(decision(line)?),
            single: true,
        });
    }
    let mut parts = line.split('-');
    let (trace, span) = (parts.next()?, parts.next()?);
    let sampled = match parts.next() {
        Some(part) => Some(decision(part)?),
        None => None,
    };
    let parent = match parts.next() {
        Some(part) => hex(part, &[16])?,
        None => 0,
    };
    if parts.next().is_some() {
        return None;
    }
    Some(Incoming {
        context: Some(b3_context(trace, span, parent)?),
        sampled,
        single: true,
    })
}

/// Reads `traceparent` and `tracestate`. `None` = malformed: such a request has no span.
#[must_use]
pub fn extract_w3c<H: Headers + ?Sized>(headers: &H) -> Option<Incoming> {
    let Some(line) = headers.first("traceparent") else {
        return Some(Incoming::default());
    };
    let line = std::str::from_utf8(line).ok()?;
    let mut parts = line.split('-');
    let (version, trace, span, flags) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    hex(version, &[2])?;
    let (trace_id, span_id) = (hex(trace, &[32])?, hex(span, &[16])?);
    let sampled = hex(flags, &[2])? & 1 == 1;
    if line.len() != 55 || trace_id == 0 || span_id == 0 {
        return None;
    }
    let mut state = String::new();
    headers.any("tracestate", &mut |value| {
        if !state.is_empty() {
            state.push(',');
        }
        state.push_str(std::str::from_utf8(value).unwrap_or_default());
        false
    });
    Some(Incoming {
        context: Some(SpanContext {
            trace_id,
            span_id: narrow(span_id),
            sampled,
            state,
            remote_parent: true,
            ..SpanContext::default()
        }),
        sampled: Some(sampled),
        single: false,
    })
}

/// Reads the headers of a form. With `also_w3c` W3C's are read where B3's say nothing.
#[must_use]
pub fn extract<H: Headers + ?Sized>(headers: &H, form: Form, also_w3c: bool) -> Option<Incoming> {
    if form == Form::W3c {
        return extract_w3c(headers);
    }
    let found = extract_b3(headers)?;
    if also_w3c && found.context.is_none() && found.sampled.is_none() {
        return Some(extract_w3c(headers).unwrap_or(found));
    }
    Some(found)
}

/// Writes a context. What was there goes; the new lines come last, as Envoy's do.
pub fn inject<H: HeadersMut + ?Sized>(headers: &mut H, context: &SpanContext, form: Form) {
    let trace = context.trace_text();
    let span = format!("{:016x}", context.span_id);
    let sampled = if context.sampled { "1" } else { "0" };
    let mut put = |name: &str, value: &str| {
        headers.remove(name);
        headers.add(name, value.as_bytes());
    };
    match form {
        Form::B3 => {
            put("x-b3-traceid", &trace);
            put("x-b3-spanid", &span);
            if context.parent_id != 0 {
                put("x-b3-parentspanid", &format!("{:016x}", context.parent_id));
            }
            put("x-b3-sampled", sampled);
        }
        Form::B3Single => {
            let mut line = format!("{trace}-{span}-{sampled}");
            if context.parent_id != 0 {
                line.push_str(&format!("-{:016x}", context.parent_id));
            }
            put("b3", &line);
        }
        Form::W3c | Form::W3cParent => {
            let trace = context.trace_id;
            put("traceparent", &format!("00-{trace:032x}-{span}-0{sampled}"));
            if form == Form::W3c {
                put("tracestate", &context.state);
            }
        }
    }
}
