//! Periodic work in its own thread: purges logins that are over, and reads a renewed certificate.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use crate::server::front::certificate::Certificate;
use crate::server::http::App;
use crate::server::spawn;

/// Starts the janitor's thread, which works once in each `period` until the process ends.
pub(crate) fn start(
    app: Arc<App>,
    certificate: Option<Arc<Certificate>>,
    period: Duration,
) -> std::io::Result<()> {
    let clean = move || loop {
        // A panic ends this round, not the thread. (The PostgreSQL client panics when it gets no descriptor.)
        let cleaned = catch_unwind(AssertUnwindSafe(|| {
            if let Some(certificate) = &certificate {
                certificate.reload_if_changed(SystemTime::now());
            }
            app.flow.clean_up()
        }));
        match cleaned {
            Ok(Ok(0)) | Err(_) => {}
            Ok(Ok(purged)) => app.log.info("purged", &[("logins", &purged.to_string())]),
            // Only a warning, since the next round tries again.
            Ok(Err(error)) => app
                .log
                .warn("purge_failed", &[("error", &error.to_string())]),
        }
        thread::sleep(period);
    };
    spawn("janitor", clean)
}
