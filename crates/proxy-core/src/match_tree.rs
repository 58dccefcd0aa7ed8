//! Trees of matchers (`xds.type.matcher.v3.Matcher`): from what is known of a connection and its
//! request to an action. What is not there, as a header that nobody sent, matches nothing.
use std::borrow::Cow;
use std::net::IpAddr;

use hashbrown::HashMap;

use crate::config::{CidrRange, Name};
use crate::matcher::{Headers, StringMatcher, ValueMatcher};
use crate::rbac::Facts;

/// What is looked at.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// A request header, lower-case; several lines are joined by commas.
    Header(Name),
    /// The client's address, as headers may tell it.
    SourceIp,
    /// The peer's.
    DirectSourceIp,
    /// The local address.
    DestinationIp,
    /// The local port.
    DestinationPort,
    /// The SNI.
    ServerName,
    /// URI SANs of the client's certificate, joined by commas.
    UriSan,
    /// DNS SANs of it, joined by commas.
    DnsSan,
    /// Its subject.
    Subject,
    /// Dynamic metadata.
    Metadata {
        /// Namespace.
        filter: Name,
        /// Keys to follow.
        path: Vec<Name>,
    },
}

/// What an input must be.
#[derive(Clone, Debug, PartialEq)]
pub enum Test {
    /// Text.
    Text(StringMatcher),
    /// An address of one of these ranges.
    Ip(Vec<CidrRange>),
    /// A metadata value; true turns the answer round.
    Value(ValueMatcher, bool),
}

/// A condition.
#[derive(Clone, Debug, PartialEq)]
pub enum Predicate {
    /// One input.
    Single(Input, Test),
    /// At least one.
    Any(Vec<Predicate>),
    /// Every one.
    All(Vec<Predicate>),
    /// Not this.
    Not(Box<Predicate>),
}

/// What a match leads to.
#[derive(Clone, Debug)]
pub enum On<A> {
    /// The end.
    Action(A),
    /// A further tree.
    Tree(Box<Tree<A>>),
}

/// How a tree chooses.
#[derive(Clone, Debug)]
pub enum Choice<A> {
    /// The first whose condition holds and that leads to an action.
    List(Vec<(Predicate, On<A>)>),
    /// By the whole text.
    Exact(Input, HashMap<Name, On<A>>),
    /// By its beginning: pairs, the longest first.
    Prefix(Input, Vec<(Name, On<A>)>),
}

/// A tree.
#[derive(Clone, Debug)]
pub struct Tree<A> {
    /// How it chooses; none = it does not.
    pub choice: Option<Choice<A>>,
    /// Where nothing was found.
    pub otherwise: Option<On<A>>,
}

impl<A> On<A> {
    fn find<H: Headers + ?Sized>(&self, facts: &Facts<'_, H>) -> Option<&A> {
        match self {
            Self::Action(action) => Some(action),
            Self::Tree(tree) => tree.find(facts),
        }
    }
}

impl<A> Tree<A> {
    /// The action for these facts.
    pub fn find<H: Headers + ?Sized>(&self, facts: &Facts<'_, H>) -> Option<&A> {
        let found = match &self.choice {
            None => None,
            Some(Choice::List(list)) => list
                .iter()
                .filter(|(predicate, _)| predicate.holds(facts))
                .find_map(|(_, on)| on.find(facts)),
            Some(Choice::Exact(input, map)) => input
                .text(facts)
                .and_then(|text| map.get(std::str::from_utf8(&text).ok()?))
                .and_then(|on| on.find(facts)),
            Some(Choice::Prefix(input, list)) => input.text(facts).and_then(|text| {
                list.iter()
                    .filter(|(prefix, _)| text.starts_with(prefix.as_bytes()))
                    .find_map(|(_, on)| on.find(facts))
            }),
        };
        found.or_else(|| self.otherwise.as_ref()?.find(facts))
    }
}

impl Predicate {
    fn holds<H: Headers + ?Sized>(&self, facts: &Facts<'_, H>) -> bool {
        match self {
            Self::Single(input, test) => test.passes(input, facts),
            Self::Any(all) => all.iter().any(|p| p.holds(facts)),
            Self::All(all) => all.iter().all(|p| p.holds(facts)),
            Self::Not(inner) => !inner.holds(facts),
        }
    }
}

impl Test {
    fn passes<H: Headers + ?Sized>(&self, input: &Input, facts: &Facts<'_, H>) -> bool {
        match self {
            Self::Text(want) => input.text(facts).is_some_and(|text| want.matches(&text)),
            Self::Ip(ranges) => input
                .ip(facts)
                .is_some_and(|ip| ranges.iter().any(|range| range.contains(ip))),
            Self::Value(want, invert) => match input {
                Input::Metadata { filter, path } => {
                    let found = (facts.metadata)(filter).and_then(|value| value.path(path));
                    want.matches(found) != *invert
                }
                _ => false,
            },
        }
    }
}

impl Input {
    /// The input as an address, where it is one.
    fn ip<H: Headers + ?Sized>(&self, facts: &Facts<'_, H>) -> Option<IpAddr> {
        match self {
            Self::SourceIp => facts.remote,
            Self::DirectSourceIp => facts.direct_remote,
            Self::DestinationIp => facts.destination.map(|at| at.ip()),
            _ => std::str::from_utf8(&self.text(facts)?).ok()?.parse().ok(),
        }
    }

    /// The input as text; none = it is not there.
    fn text<'a, H: Headers + ?Sized>(&self, facts: &Facts<'a, H>) -> Option<Cow<'a, [u8]>> {
        let shown = |text: String| Cow::Owned(text.into_bytes());
        let joined = |list: &[String]| Some(list.join(",")).filter(|text| !text.is_empty());
        match self {
            Self::Header(name) => lines(facts.headers?, name).map(Cow::Owned),
            Self::SourceIp | Self::DirectSourceIp | Self::DestinationIp => {
                self.ip(facts).map(|ip| shown(ip.to_string()))
            }
            Self::DestinationPort => facts.destination.map(|at| shown(at.port().to_string())),
            Self::ServerName => Some(facts.server_name.as_bytes())
                .filter(|name| !name.is_empty())
                .map(Cow::Borrowed),
            Self::UriSan => joined(facts.peer?.uri_sans).map(shown),
            Self::DnsSan => joined(facts.peer?.dns_sans).map(shown),
            Self::Subject => Some(facts.peer?.subject.as_bytes())
                .filter(|subject| !subject.is_empty())
                .map(Cow::Borrowed),
            Self::Metadata { .. } => None,
        }
    }
}

/// All lines of a header, joined by commas.
fn lines<H: Headers + ?Sized>(headers: &H, name: &str) -> Option<Vec<u8>> {
    let mut all: Option<Vec<u8>> = None;
    headers.any(name, &mut |line| {
        match &mut all {
            Some(text) => {
                text.push(b',');
                text.extend_from_slice(line);
            }
            None => all = Some(line.to_vec()),
        }
        false
    });
    all
}
