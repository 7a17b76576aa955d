//! haproxy, nginx and Caddy from Debian in front of instances of the server. Each has a free port and its own configuration,
//! and ends with the test.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::http::{self, Answer};
use super::{Connection, eventually, signal, wait_for_exit};

/// The proxy program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It checks `/ready` ten times a second, and sends no client to a stopping instance. It keeps no idle connections, for
    /// which a stopping instance would wait.
    Haproxy,
    /// It has no health check: after a refused connection it tries the other instance. It keeps connections open.
    Nginx,
}

/// A running proxy; ended when dropped.
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    child: Child,
    _folder: TempDir,
}

/// A port on which no process listens.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port on loopback");
    listener.local_addr().expect("it is bound").port()
}

impl Proxy {
    /// Starts one on `port` in front of instances on these ports of 127.0.0.1, and waits until it listens.
    pub fn start(kind: Kind, port: u16, instances: [u16; 2]) -> Proxy {
        match kind {
            Kind::Haproxy => run(HAPROXY, port, |_| haproxy(port, instances)),
            Kind::Nginx => run(NGINX, port, |folder| nginx(port, instances, folder)),
        }
    }

    /// Proxies that speak HTTP/2 without TLS and forward bodies without buffering, each with its name, in front of one instance.
    pub fn http_2(instance: u16) -> [(&'static str, Proxy); 3] {
        let ports = [free_port(), free_port(), free_port()];
        let nginx = run(NGINX, ports[0], |folder| {
            let usual = nginx(ports[0], [instance; 2], folder);
            let listen = format!("127.0.0.1:{}", ports[0]);
            usual
                .replace(
                    &format!("listen {listen};"),
                    &format!("listen {listen} http2;"),
                )
                .replace(
                    "location / {",
                    "location / {\n            proxy_request_buffering off;",
                )
        });
        let haproxy = run(HAPROXY, ports[1], |_| {
            let bind = format!("bind 127.0.0.1:{}", ports[1]);
            haproxy(ports[1], [instance; 2]).replace(&bind, &format!("{bind} proto h2"))
        });
        let caddy = run(CADDY, ports[2], |_| caddy(ports[2], instance));
        [("nginx", nginx), ("haproxy", haproxy), ("caddy", caddy)]
    }

    /// The three example configurations of the handbook with other addresses, in front of one instance, each
    /// with its name.
    pub fn handbook(instance: u16) -> [(&'static str, Proxy); 3] {
        let example = |language: &str| {
            let handbook = include_str!("../../../scripts/README.md");
            let (_, rest) = handbook
                .split_once(&format!("```{language}\n"))
                .expect("the handbook has an example");
            let (example, _) = rest.split_once("```").expect("the example ends");
            example.replace("127.0.0.1:3111", &format!("127.0.0.1:{instance}"))
        };
        let ports = [free_port(), free_port(), free_port()];
        let nginx = run(NGINX, ports[0], |folder| {
            let usual = nginx(ports[0], [instance; 2], folder);
            let (before, _) = usual.split_once("location / {").expect("it has one");
            format!("{before}{}}}}}", example("nginx"))
        });
        let haproxy = run(HAPROXY, ports[1], |_| {
            let bind = format!("bind 127.0.0.1:{}", ports[1]);
            example("haproxy").replace("bind :443 ssl crt /etc/haproxy/example.com.pem", &bind)
        });
        let caddy = run(CADDY, ports[2], |_| {
            let site = format!("http://:{} {{\n    bind 127.0.0.1", ports[2]);
            let example = example("caddy").replace("example.com {", &site);
            format!("{{\n    admin off\n}}\n{example}")
        });
        [("nginx", nginx), ("haproxy", haproxy), ("caddy", caddy)]
    }

    /// `GET`.
    pub fn get(&self, target: &str) -> Answer {
        http::exchange(self.address, http::request("GET", target, &[], b""))
    }

    /// Waits until it sends clients to the instance on this port.
    pub fn wait_for(&self, instance: u16) {
        let place = format!("127.0.0.1:{instance}");
        eventually("the proxy has found the instance", || {
            self.get("/health").header("x-instance") == Some(&place)
        });
    }
}

/// A program, and its arguments that precede the configuration file.
type Program = (&'static str, &'static [&'static str]);

/// `-db`: in the foreground.
const HAPROXY: Program = ("/usr/sbin/haproxy", &["-db", "-f"]);
const NGINX: Program = ("/usr/sbin/nginx", &["-c"]);
const CADDY: Program = (
    "/usr/bin/caddy",
    &["run", "--adapter", "caddyfile", "--config"],
);

fn run(
    (program, arguments): Program,
    port: u16,
    configuration: impl FnOnce(&Path) -> String,
) -> Proxy {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("proxy.conf");
    fs::write(&file, configuration(folder.path())).expect("the test may write the file");
    let child = Command::new(program)
        .args(arguments)
        .arg(&file)
        // Caddy keeps its state there.
        .env("HOME", folder.path())
        .current_dir(&folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|e| {
            panic!("{program} (on Debian: apt-get install haproxy nginx-light caddy): {e}")
        });
    let mut proxy = Proxy {
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        child,
        _folder: folder,
    };
    eventually("the proxy listens", || {
        let ended = proxy.child.try_wait().expect("the child can be waited for");
        assert!(ended.is_none(), "{program} ended: {ended:?}");
        Connection::try_open(proxy.address).is_ok()
    });
    proxy
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may have ended by itself.
        if matches!(self.child.try_wait(), Ok(None)) {
            signal(&self.child, "TERM");
            wait_for_exit(&mut self.child);
        }
    }
}

fn haproxy(port: u16, [a, b]: [u16; 2]) -> String {
    format!(
        "defaults
    mode http
    timeout connect 2s
    timeout client 60s
    timeout server 60s
    timeout check 5s
    option redispatch
    option forwardfor
frontend public
    bind 127.0.0.1:{port}
    default_backend auth
backend auth
    option httpchk GET /ready
    http-check expect status 200
    http-response set-header X-Instance %si:%sp
    default-server check inter 100ms fall 1 rise 1 pool-max-conn 0
    server a 127.0.0.1:{a}
    server b 127.0.0.1:{b}
"
    )
}

fn nginx(port: u16, [a, b]: [u16; 2], folder: &Path) -> String {
    let folder = folder.display();
    // In one process, so that killing it leaves no worker behind.
    format!(
        "daemon off;
master_process off;
pid {folder}/pid;
error_log {folder}/log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream auth {{
        server 127.0.0.1:{a} max_fails=1 fail_timeout=1s;
        server 127.0.0.1:{b} max_fails=1 fail_timeout=1s;
        keepalive 8;
    }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://auth;
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header Connection \"\";
            proxy_set_header X-Forwarded-For $remote_addr;
            add_header X-Instance $upstream_addr always;
        }}
    }}
}}
"
    )
}

fn caddy(port: u16, instance: u16) -> String {
    format!(
        "{{
    admin off
    auto_https off
    servers {{
        protocols h1 h2c
    }}
}}
http://127.0.0.1:{port} {{
    bind 127.0.0.1
    reverse_proxy 127.0.0.1:{instance}
}}
"
    )
}
