//! The injected containers: `istio-init` (or `istio-validation`) and `istio-proxy`.

use serde_json::{Map, Value, json};

use super::annotation::{Annotations, wrong};
use super::environment::{metadata, proxy_config, variables};
use super::{INIT, InjectConfig, InjectError, PROXY, PROXY_UID, VALIDATION, Workload, volumes};

/// What a pod's annotations and the configuration say about its sidecar.
pub(super) struct Settings<'a> {
    pub(super) config: &'a InjectConfig,
    pub(super) annotations: &'a Annotations,
    /// `REDIRECT`, `TPROXY` or `NONE`.
    pub(super) mode: String,
    /// The agent's health port, 15021.
    pub(super) status_port: i64,
    /// Whether the proxy is an init container that stays.
    pub(super) native: bool,
    /// Whether the application waits for the proxy.
    pub(super) hold: bool,
}

const STATUS_PORT: &str = "status.sidecar.istio.io/port";

impl<'a> Settings<'a> {
    pub(super) fn read(
        config: &'a InjectConfig,
        annotations: &'a Annotations,
    ) -> Result<Self, InjectError> {
        let proxy = proxy_config(config, annotations)?;
        let mode = annotations
            .get("sidecar.istio.io/interceptionMode")
            .or_else(|| proxy["interceptionMode"].as_str())
            .unwrap_or("REDIRECT");
        if !matches!(mode, "REDIRECT" | "TPROXY" | "NONE") {
            let what = "REDIRECT, TPROXY or NONE";
            return Err(wrong("sidecar.istio.io/interceptionMode", mode, what));
        }
        let status = annotations.port(STATUS_PORT)?;
        let mesh = || u16::try_from(proxy["statusPort"].as_u64()?).ok();
        let status = status.or_else(mesh).map(i64::from);
        let hold = proxy["holdApplicationUntilProxyStarts"].as_bool();
        let mesh_hold = config.flag("global.proxy.holdApplicationUntilProxyStarts");
        Ok(Self {
            config,
            annotations,
            mode: mode.to_owned(),
            // 15020 is the agent itself; health is asked on 15021.
            status_port: status.filter(|port| *port != 15020).unwrap_or(15021),
            native: annotations
                .flag(super::annotation::NATIVE_SIDECAR)?
                .unwrap_or_else(|| config.native()),
            hold: hold.or(mesh_hold).unwrap_or(false),
        })
    }

    fn log_level(&self, annotation: &str, value: &str, default: &str) -> String {
        self.annotations
            .get(annotation)
            .map(str::to_owned)
            .or_else(|| self.config.text(value))
            .unwrap_or(default.to_owned())
    }

    fn agent_log_level(&self) -> String {
        let default = "default:info";
        self.log_level(
            "sidecar.istio.io/agentLogLevel",
            "global.logging.level",
            default,
        )
    }
}

/// `istio-init`, or `istio-validation` where a CNI plug-in has set the rules.
pub(super) fn init(settings: &Settings<'_>) -> Result<Value, InjectError> {
    let config = settings.config;
    let cni = config.flag("pilot.cni.enabled").unwrap_or(false);
    let image = config.text("global.proxy_init.image");
    let mut container = json!({
        "name": if cni { VALIDATION } else { INIT },
        "image": config.image(&image.unwrap_or("proxyv2".into())),
        "args": init_args(settings, cni)?,
    });
    pull_policy(config, &mut container);
    let proxy = proxy_config(config, settings.annotations)?;
    let variables = metadata(&proxy);
    if !variables.is_empty() {
        container["env"] = variables.into();
    }
    container["resources"] = resources(settings)?;
    container["securityContext"] = if cni {
        json!({
            "allowPrivilegeEscalation": false,
            "privileged": false,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": true,
            "runAsGroup": PROXY_UID, "runAsUser": PROXY_UID, "runAsNonRoot": true,
        })
    } else {
        json!({
            "allowPrivilegeEscalation": false,
            "privileged": false,
            "capabilities": {"add": ["NET_ADMIN", "NET_RAW"], "drop": ["ALL"]},
            "readOnlyRootFilesystem": false,
            "runAsGroup": 0, "runAsUser": 0, "runAsNonRoot": false,
        })
    };
    Ok(container)
}

fn init_args(settings: &Settings<'_>, cni: bool) -> Result<Vec<String>, InjectError> {
    let (config, notes) = (settings.config, settings.annotations);
    let value = |path: &str| config.text(&format!("global.proxy.{path}"));
    let traffic = |name: &str| format!("traffic.sidecar.istio.io/{name}");
    let include_ranges = notes.ranges(&traffic("includeOutboundIPRanges"), true)?;
    let exclude_ranges = notes.ranges(&traffic("excludeOutboundIPRanges"), false)?;
    let include_inbound = notes.ports(&traffic("includeInboundPorts"), true)?;
    let exclude_inbound = notes.ports(&traffic("excludeInboundPorts"), false)?;
    let include_outbound = notes.ports(&traffic("includeOutboundPorts"), false)?;
    let exclude_outbound = notes.ports(&traffic("excludeOutboundPorts"), false)?;
    let mut inbound_left = match settings.status_port {
        0 => "15090,15020".to_owned(),
        port => format!("15090,{port},15020"),
    };
    let more = exclude_inbound.or_else(|| value("excludeInboundPorts"));
    if let Some(more) = more.filter(|more| !more.is_empty()) {
        inbound_left = format!("{inbound_left},{more}");
    }
    let pairs = [
        ("-p", "15001".to_owned()),
        ("-z", "15006".to_owned()),
        ("-u", PROXY_UID.to_string()),
        ("-m", settings.mode.clone()),
        (
            "-i",
            include_ranges
                .or_else(|| value("includeIPRanges"))
                .unwrap_or("*".into()),
        ),
        (
            "-x",
            exclude_ranges
                .or_else(|| value("excludeIPRanges"))
                .unwrap_or_default(),
        ),
        (
            "-b",
            include_inbound
                .or_else(|| value("includeInboundPorts"))
                .unwrap_or("*".into()),
        ),
        ("-d", inbound_left),
    ];
    let mut args = vec!["istio-iptables".to_owned()];
    args.extend(
        pairs
            .into_iter()
            .flat_map(|(flag, value)| [flag.to_owned(), value]),
    );
    let optional = [
        (
            "-q",
            include_outbound.or_else(|| value("includeOutboundPorts")),
        ),
        (
            "-o",
            exclude_outbound.or_else(|| value("excludeOutboundPorts")),
        ),
        ("-k", notes.interfaces(&traffic("kubevirtInterfaces"))?),
        ("-c", notes.interfaces(&traffic("excludeInterfaces"))?),
    ];
    for (flag, value) in optional {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            args.extend([flag.to_owned(), value]);
        }
    }
    args.push(format!("--log_output_level={}", settings.agent_log_level()));
    if config.flag("global.nativeNftables").unwrap_or(false) {
        args.push("--native-nftables".to_owned());
    }
    if cni {
        args.extend([
            "--run-validation".to_owned(),
            "--skip-rule-apply".to_owned(),
        ]);
    }
    Ok(args)
}

/// `istio-proxy`: `role` is `sidecar` or `router`.
pub(super) fn proxy(
    settings: &Settings<'_>,
    pod: &Value,
    workload: &Workload,
    role: &str,
) -> Result<Value, InjectError> {
    let (config, notes) = (settings.config, settings.annotations);
    let image = notes
        .get("sidecar.istio.io/proxyImage")
        .map(str::to_owned)
        .or_else(|| config.text("global.proxy.image"));
    let mut container = json!({
        "name": PROXY,
        "image": config.image(&image.unwrap_or("proxyv2".into())),
    });
    pull_policy(config, &mut container);
    if settings.native && role == "sidecar" {
        container["restartPolicy"] = "Always".into();
    }
    container["ports"] =
        json!([{"containerPort": 15090, "protocol": "TCP", "name": "http-envoy-prom"}]);
    container["args"] = proxy_args(settings, role).into();
    if let Some(lifecycle) = lifecycle(settings, role) {
        container["lifecycle"] = lifecycle;
    }
    container["env"] = variables(config, pod, workload, notes, &settings.mode)?.into();
    // Port 0 asks for no probes.
    if settings.status_port != 0 {
        container["startupProbe"] = json!({
            "httpGet": {"path": "/healthz/ready", "port": settings.status_port},
            "initialDelaySeconds": 0,
            "periodSeconds": 1,
            "timeoutSeconds": 3,
            "failureThreshold": 600,
        });
        container["readinessProbe"] = readiness(settings)?;
    }
    container["resources"] = resources(settings)?;
    container["securityContext"] = security(settings, role == "sidecar");
    container["volumeMounts"] = volumes::mounts(notes)?.into();
    Ok(container)
}

fn proxy_args(settings: &Settings<'_>, role: &str) -> Vec<String> {
    let level = settings.log_level(
        "sidecar.istio.io/logLevel",
        "global.proxy.logLevel",
        "warning",
    );
    let component = settings.log_level(
        "sidecar.istio.io/componentLogLevel",
        "global.proxy.componentLogLevel",
        "misc:error",
    );
    let domain = format!("$(POD_NAMESPACE).svc.{}", settings.config.cluster_domain());
    let mut args = vec![
        "proxy".to_owned(),
        role.to_owned(),
        "--domain".to_owned(),
        domain,
    ];
    args.push(format!("--proxyLogLevel={level}"));
    args.push(format!("--proxyComponentLogLevel={component}"));
    args.push(format!("--log_output_level={}", settings.agent_log_level()));
    args
}

fn lifecycle(settings: &Settings<'_>, role: &str) -> Option<Value> {
    if role != "sidecar" {
        return None;
    }
    if settings.native {
        let drain = [
            "pilot-agent",
            "request",
            "--debug-port=15020",
            "POST",
            "drain",
        ];
        return Some(json!({"preStop": {"exec": {"command": drain}}}));
    }
    settings
        .hold
        .then(|| json!({"postStart": {"exec": {"command": ["pilot-agent", "wait"]}}}))
}

fn readiness(settings: &Settings<'_>) -> Result<Value, InjectError> {
    let number = |name: &str, value: &str, default: u32| {
        let annotation = format!("readiness.status.sidecar.istio.io/{name}");
        let value = format!("global.proxy.{value}");
        let configured = settings.config.value(&value).and_then(Value::as_u64);
        let configured = configured.and_then(|number| u32::try_from(number).ok());
        let own = settings.annotations.number(&annotation)?;
        Ok(own.or(configured).unwrap_or(default))
    };
    Ok(json!({
        "httpGet": {"path": "/healthz/ready", "port": settings.status_port},
        "initialDelaySeconds": number("initialDelaySeconds", "readinessInitialDelaySeconds", 0)?,
        "periodSeconds": number("periodSeconds", "readinessPeriodSeconds", 15)?,
        "timeoutSeconds": 3,
        "failureThreshold": number("failureThreshold", "readinessFailureThreshold", 4)?,
    }))
}

fn security(settings: &Settings<'_>, sidecar: bool) -> Value {
    let mut context = json!({
        "allowPrivilegeEscalation": false,
        "privileged": false,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": true,
        "runAsGroup": PROXY_UID, "runAsUser": PROXY_UID, "runAsNonRoot": true,
    });
    if sidecar && settings.mode == "TPROXY" {
        // A transparent socket takes the capability, and that takes root.
        context["capabilities"]["add"] = json!(["NET_ADMIN"]);
        context["runAsUser"] = 0.into();
        context["runAsNonRoot"] = false.into();
    }
    context
}

/// Requests and limits: from annotations if there is any, else from the configuration.
fn resources(settings: &Settings<'_>) -> Result<Value, InjectError> {
    let mut own = Map::new();
    for (annotation, section, resource) in [
        ("proxyCPU", "requests", "cpu"),
        ("proxyMemory", "requests", "memory"),
        ("proxyCPULimit", "limits", "cpu"),
        ("proxyMemoryLimit", "limits", "memory"),
    ] {
        let name = format!("sidecar.istio.io/{annotation}");
        if let Some(quantity) = settings.annotations.get(&name) {
            if !quantity.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
                return Err(wrong(&name, quantity, "a quantity"));
            }
            let section = own.entry(section).or_insert_with(|| json!({}));
            section[resource] = quantity.into();
        }
    }
    if !own.is_empty() {
        return Ok(Value::Object(own));
    }
    Ok(settings
        .config
        .value("global.proxy.resources")
        .cloned()
        .unwrap_or_else(|| {
            json!({
                "limits": {"cpu": "2000m", "memory": "1024Mi"},
                "requests": {"cpu": "100m", "memory": "128Mi"},
            })
        }))
}

fn pull_policy(config: &InjectConfig, container: &mut Value) {
    if let Some(policy) = config.text("global.imagePullPolicy") {
        container["imagePullPolicy"] = policy.into();
    }
}
