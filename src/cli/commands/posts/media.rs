//! The media of a post: uploads local files, and passes web addresses on.

use std::ffi::OsStr;

use serde::Serialize;

use crate::cli::api::Api;
use crate::cli::command::Options;
use crate::cli::commands::posts::flags::DRY_RUN;
use crate::cli::commands::posts::parts::Part;
use crate::cli::commands::upload::Source;
use crate::cli::context::Context;
use crate::cli::error::{CliError, Exit};
use crate::shared::random;

/// A picture or video of a part, as the API takes it.
#[derive(Clone, Serialize)]
pub(super) struct Image {
    id: String,
    path: String,
}

/// The local files among a post's media, opened before anything is sent.
pub(super) struct Files(Vec<(String, Source)>);

pub(super) struct Uploaded(Vec<(String, Image)>);

impl Files {
    pub(super) fn open(context: &mut Context, parts: &[Part]) -> Result<Files, CliError> {
        let mut files: Vec<(String, Source)> = Vec::new();
        for media in parts.iter().flat_map(|part| &part.media) {
            if is_address(media) || files.iter().any(|(path, _)| path == media) {
                continue;
            }
            let source = match media.as_str() {
                "-" => Err(CliError::usage("stdin (-) cannot be a -m: upload it first")),
                path => Source::open(context, OsStr::new(path), None),
            };
            files.push((media.clone(), source.map_err(as_usage)?));
        }
        Ok(Files(files))
    }

    /// Uploads each file once, and says its address: if the post itself fails, the user need not upload again.
    pub(super) fn upload(
        self,
        context: &mut Context,
        options: &Options,
        api: &Api,
    ) -> Result<Uploaded, CliError> {
        let mut uploaded = Vec::new();
        for (path, source) in self.0 {
            if options.has(&DRY_RUN) {
                context.output.say(&format!("would upload {path}"));
                continue;
            }
            let record = source.upload(context, api)?.value();
            let (Some(id), Some(address)) = (record["id"].as_str(), record["path"].as_str()) else {
                let message = format!("Postiz did not say where {path} is, so nothing was posted");
                return Err(CliError::failed(message));
            };
            context.output.say(&format!("uploaded {path}: {address}"));
            let image = Image {
                id: id.to_owned(),
                path: address.to_owned(),
            };
            uploaded.push((path, image));
        }
        Ok(Uploaded(uploaded))
    }
}

impl Uploaded {
    pub(super) fn images(&self, part: &Part) -> Vec<Image> {
        let image = |media: &String| {
            let file = self.0.iter().find(|(path, _)| path == media);
            file.map_or_else(|| Image::of(media), |(_, image)| image.clone())
        };
        part.media.iter().map(image).collect()
    }
}

impl Image {
    fn of(address: &str) -> Image {
        let letters = b"abcdefghijklmnopqrstuvwxyz0123456789";
        let id = (0..7).map(|_| char::from(random::letter(letters)));
        Image {
            id: id.collect(),
            path: address.to_owned(),
        }
    }
}

/// Is it a web address rather than a local file?
fn is_address(media: &str) -> bool {
    media.contains("://")
}

fn as_usage(error: CliError) -> CliError {
    let error = CliError {
        exit: Exit::Usage,
        ..error
    };
    error.hint("-m takes files of this machine and http(s) addresses; nothing was sent")
}
