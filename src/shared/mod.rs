//! What both programs use: the constants of the device flow, one HTTP client, secrets that do not print.

pub mod wire;

pub mod base_url;
pub mod http_client;

pub mod base64;
pub mod hash;
pub mod pem;
pub mod percent;
pub mod pkce;
pub mod random;
pub mod secret;
pub mod small_file;
pub mod text;
pub mod utc;
pub mod version;
