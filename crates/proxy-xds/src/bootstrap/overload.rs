//! A bootstrap's overload manager: which resources are watched, what is done when they run short,
//! and the limit on downstream connections. What is not done here is refused by its name.

use std::time::Duration;

use lateen_proxy_core::config::bootstrap::{Monitor, Overload, PressureSource, ScaledTimeout};
use lateen_proxy_core::overload::{Action, Least, Rule, Trigger};
use lateen_xds_proto::envoy::config::overload::v3 as pb;
use lateen_xds_proto::envoy::extensions::resource_monitors::cgroup_memory::v3::CgroupMemoryConfig;
use lateen_xds_proto::envoy::extensions::resource_monitors::downstream_connections::v3::DownstreamConnectionsConfig;
use lateen_xds_proto::envoy::extensions::resource_monitors::fixed_heap::v3::FixedHeapConfig;
use lateen_xds_proto::envoy::extensions::resource_monitors::injected_resource::v3::InjectedResourceConfig;
use lateen_xds_proto::{Any, any};

use crate::decode;
use crate::error::{At, Result, list, refuse};

/// Between two readings where nothing is said.
const REFRESH: Duration = Duration::from_secs(1);
/// Less would be a loop that never rests.
const SHORTEST_REFRESH: Duration = Duration::from_millis(1);
/// Between two times that memory is given back where nothing is said. Envoy takes ten: a proxy that
/// turns everybody away because of memory that nobody uses any more should not do so for long.
const SHRINK: Duration = Duration::from_secs(1);

/// A monitor of the list.
enum Watched {
    /// Has a pressure.
    Resource(Monitor),
    /// Counts connections by itself and keeps the ones above its limit out.
    Connections(u32),
}

/// The limit on connections, and what is done under pressure where a resource is watched.
///
/// # Errors
/// What Envoy refuses, and what is not done here.
pub(super) fn manager(m: Option<&pb::OverloadManager>) -> Result<(Option<u32>, Option<Overload>)> {
    let Some(m) = m else {
        return Ok((None, None));
    };
    if m.resource_monitors.is_empty() {
        return refuse("must name at least one").at("resource_monitors");
    }
    if m.buffer_factory_config.is_some() {
        return refuse("is not implemented").at("buffer_factory_config");
    }
    let (mut most, mut monitors) = (None, Vec::<Monitor>::new());
    for (i, one) in m.resource_monitors.iter().enumerate() {
        let earlier = m.resource_monitors.iter().take(i);
        if earlier.filter(|e| e.name == one.name).count() > 0 {
            return refuse(format!("duplicate resource monitor {}", one.name))
                .at("name")
                .item("resource_monitors", i);
        }
        match monitor(one).item("resource_monitors", i)? {
            Watched::Connections(limit) => most = Some(limit),
            Watched::Resource(monitor) => monitors.push(monitor),
        }
    }
    let refresh = decode::opt_duration(m.refresh_interval.as_ref(), "refresh_interval")?;
    let mut overload = Overload {
        refresh_interval: refresh.unwrap_or(REFRESH).max(SHORTEST_REFRESH),
        monitors,
        rules: Vec::new(),
        shrink_interval: SHRINK,
        timeouts: Vec::new(),
    };
    for (i, one) in m.actions.iter().enumerate() {
        action(one, &mut overload).item("actions", i)?;
    }
    for (i, one) in m.loadshed_points.iter().enumerate() {
        point(one, &mut overload).item("loadshed_points", i)?;
    }
    let watches = !overload.monitors.is_empty();
    Ok((most, watches.then_some(overload)))
}

fn monitor(m: &pb::ResourceMonitor) -> Result<Watched> {
    if m.name.is_empty() {
        return refuse("is required").at("name");
    }
    let Some(pb::resource_monitor::ConfigType::TypedConfig(config)) = &m.config_type else {
        return refuse("is required").at("typed_config");
    };
    let source = match () {
        () if any::is::<DownstreamConnectionsConfig>(config) => {
            return connections(config)
                .at("typed_config")
                .map(Watched::Connections);
        }
        () if any::is::<FixedHeapConfig>(config) => fixed_heap(config),
        () if any::is::<CgroupMemoryConfig>(config) => cgroup(config),
        () if any::is::<InjectedResourceConfig>(config) => injected(config),
        () => refuse(format!("resource monitor {} is not implemented", m.name)),
    };
    Ok(Watched::Resource(Monitor {
        name: m.name.as_str().into(),
        source: source.at("typed_config")?,
    }))
}

fn connections(config: &Any) -> Result<u32> {
    let config: DownstreamConnectionsConfig = any::unpack(config)?;
    match u32::try_from(config.max_active_downstream_connections) {
        Ok(most @ 1..) => Ok(most),
        Err(_) if config.max_active_downstream_connections > 0 => Ok(u32::MAX),
        _ => refuse("must be at least 1").at("max_active_downstream_connections"),
    }
}

fn fixed_heap(config: &Any) -> Result<PressureSource> {
    let config: FixedHeapConfig = any::unpack(config)?;
    // There is no runtime that changes: what holds is the default.
    let (field, most) = match (
        &config.max_heap_size_bytes_runtime,
        config.max_heap_size_bytes,
    ) {
        (None, most) => ("max_heap_size_bytes", most),
        (Some(runtime), 0) => ("max_heap_size_bytes_runtime", runtime.default_value),
        (Some(_), _) => {
            return refuse("stands beside max_heap_size_bytes; exactly one must be set")
                .at("max_heap_size_bytes_runtime");
        }
    };
    match most {
        0 => refuse("must be greater than 0").at(field),
        most => Ok(PressureSource::FixedHeap(most)),
    }
}

fn cgroup(config: &Any) -> Result<PressureSource> {
    let config: CgroupMemoryConfig = any::unpack(config)?;
    let most = Some(config.max_memory_bytes).filter(|most| *most > 0);
    Ok(PressureSource::CgroupMemory(most))
}

fn injected(config: &Any) -> Result<PressureSource> {
    let config: InjectedResourceConfig = any::unpack(config)?;
    match config.filename.is_empty() {
        true => refuse("is required").at("filename"),
        false => Ok(PressureSource::Injected(config.filename.as_str().into())),
    }
}

fn action(m: &pb::OverloadAction, overload: &mut Overload) -> Result<()> {
    let action = match (Action::named(&m.name), &m.typed_config) {
        (Some(action), _) if !action.is_point() => action,
        // Its type says what it is, whatever it is called.
        (None, Some(config)) if any::is::<pb::ScaleTimersOverloadActionConfig>(config) => {
            return refuse("reduce_timeouts under another name is not implemented").at("name");
        }
        _ => {
            return refuse(format!(
                "overload action {} is unknown or not implemented",
                m.name
            ))
            .at("name");
        }
    };
    let rule = rule(action, &m.name, &m.triggers, overload)?;
    match (action, &m.typed_config) {
        (Action::ReduceTimeouts, Some(config)) => {
            overload.timeouts = timeouts(config).at("typed_config")?;
        }
        (Action::ReduceTimeouts, None) => return refuse("is required").at("typed_config"),
        (Action::ShrinkHeap, Some(config)) => {
            overload.shrink_interval = shrink(config).at("typed_config")?;
        }
        (_, Some(_)) => return refuse(format!("{} has none", m.name)).at("typed_config"),
        (_, None) => {}
    }
    overload.rules.push(rule);
    Ok(())
}

fn point(m: &pb::LoadShedPoint, overload: &mut Overload) -> Result<()> {
    let point = match Action::named(&m.name) {
        Some(point) if point.is_point() => point,
        _ => {
            return refuse(format!(
                "load shed point {} is unknown or not implemented",
                m.name
            ))
            .at("name");
        }
    };
    let rule = rule(point, &m.name, &m.triggers, overload)?;
    overload.rules.push(rule);
    Ok(())
}

fn rule(action: Action, name: &str, triggers: &[pb::Trigger], overload: &Overload) -> Result<Rule> {
    if overload.rules.iter().any(|rule| rule.action == action) {
        return refuse(format!("duplicate {name}")).at("name");
    }
    if triggers.is_empty() {
        return refuse("must name at least one").at("triggers");
    }
    let mut seen: Vec<usize> = Vec::new();
    let mut take = |m: &pb::Trigger| {
        let known = |monitor: &Monitor| *monitor.name == *m.name;
        let Some(place) = overload.monitors.iter().position(known) else {
            // The limit on connections has no pressure, in Envoy either: nothing would ever happen.
            return refuse(format!("unknown trigger resource '{}'", m.name)).at("name");
        };
        if seen.contains(&place) {
            return refuse(format!("duplicate trigger resource {}", m.name)).at("name");
        }
        seen.push(place);
        Ok((place, trigger(m)?))
    };
    let mut all = Vec::new();
    for (i, one) in triggers.iter().enumerate() {
        all.push(take(one).item("triggers", i)?);
    }
    Ok(Rule {
        action,
        triggers: all,
    })
}

fn trigger(m: &pb::Trigger) -> Result<Trigger> {
    use pb::trigger::TriggerOneof as T;
    let share = |value: f64, field: &str| match (0.0..=1.0).contains(&value) {
        true => Ok(value),
        false => refuse("must be from 0 to 1").at(field),
    };
    match &m.trigger_oneof {
        Some(T::Threshold(m)) => Ok(Trigger::Threshold(share(m.value, "value").at("threshold")?)),
        Some(T::Scaled(m)) => {
            let from = share(m.scaling_threshold, "scaling_threshold").at("scaled")?;
            let full = share(m.saturation_threshold, "saturation_threshold").at("scaled")?;
            if from >= full {
                return refuse("must be less than saturation_threshold")
                    .at("scaling_threshold")
                    .at("scaled");
            }
            Ok(Trigger::Scaled { from, full })
        }
        None => refuse("threshold or scaled is required"),
    }
}

fn shrink(config: &Any) -> Result<Duration> {
    let config: pb::ShrinkHeapConfig = any::unpack(config)?;
    if config.max_unfreed_memory_bytes.is_some() {
        return refuse("is not implemented; all that is free is given back")
            .at("max_unfreed_memory_bytes");
    }
    match decode::opt_duration(config.timer_interval.as_ref(), "timer_interval")? {
        Some(short) if short < Duration::from_secs(1) => {
            refuse("must be at least 1s").at("timer_interval")
        }
        interval => Ok(interval.unwrap_or(SHRINK)),
    }
}

fn timeouts(config: &Any) -> Result<Vec<(ScaledTimeout, Least)>> {
    let config: pb::ScaleTimersOverloadActionConfig = any::unpack(config)?;
    if config.timer_scale_factors.is_empty() {
        return refuse("must name at least one").at("timer_scale_factors");
    }
    let all = list(&config.timer_scale_factors, "timer_scale_factors", timeout)?;
    for (i, (timeout, _)) in all.iter().enumerate() {
        if all.iter().take(i).any(|(earlier, _)| earlier == timeout) {
            return refuse("duplicate timer")
                .at("timer")
                .item("timer_scale_factors", i);
        }
    }
    Ok(all)
}

fn timeout(
    m: &pb::scale_timers_overload_action_config::ScaleTimer,
) -> Result<(ScaledTimeout, Least)> {
    use pb::scale_timers_overload_action_config::TimerType as T;
    use pb::scale_timers_overload_action_config::scale_timer::OverloadAdjust as O;
    let timer = match T::try_from(m.timer) {
        Ok(T::HttpDownstreamConnectionIdle) => ScaledTimeout::ConnectionIdle,
        Ok(T::HttpDownstreamStreamIdle) => ScaledTimeout::StreamIdle,
        Ok(T::TransportSocketConnect) => ScaledTimeout::TransportConnect,
        Ok(other @ (T::HttpDownstreamConnectionMax | T::HttpDownstreamStreamFlush)) => {
            return refuse(format!("{} is not implemented", other.as_str_name())).at("timer");
        }
        Ok(T::Unspecified) | Err(_) => return refuse("must be a known timer").at("timer"),
    };
    let least = match &m.overload_adjust {
        Some(O::MinTimeout(time)) => Least::Time(decode::duration(time).at("min_timeout")?),
        Some(O::MinScale(share)) => match (0.0..=100.0).contains(&share.value) {
            true => Least::Share(share.value / 100.0),
            false => return refuse("must be from 0 to 100").at("value").at("min_scale"),
        },
        None => return refuse("min_timeout or min_scale is required"),
    };
    Ok((timer, least))
}
