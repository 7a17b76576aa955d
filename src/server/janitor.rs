//! What is done now and then, in a thread of its own: purges what is long over, and reads a renewed certificate.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use crate::server::front::tls::Certificate;
use crate::server::http::App;

/// Starts the janitor, which purges and reads the certificate once in each `period`. It runs until the process ends.
pub(crate) fn start(
    app: Arc<App>,
    certificate: Option<Arc<Certificate>>,
    period: Duration,
) -> std::io::Result<()> {
    let clean = move || loop {
        // A panic (the PostgreSQL client's, where it gets no descriptor) ends this round, not the janitor.
        let cleaned = catch_unwind(AssertUnwindSafe(|| {
            if let Some(certificate) = &certificate {
                certificate.reload_if_changed(SystemTime::now());
            }
            app.flow.clean_up()
        }));
        match cleaned {
            Ok(Ok(0)) | Err(_) => {}
            Ok(Ok(purged)) => app.log.info("purged", &[("logins", &purged.to_string())]),
            // It comes again; those who need the store now say so themselves.
            Ok(Err(error)) => app
                .log
                .warn("purge_failed", &[("error", &error.to_string())]),
        }
        thread::sleep(period);
    };
    thread::Builder::new()
        .name("janitor".to_owned())
        .spawn(clean)
        .map(drop)
}
