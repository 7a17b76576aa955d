//! Parts of the public API of newer Postiz versions: the media library, clips of long videos, the page that connects a channel,
//! free slots, notifications, and the signed-in person.

use std::sync::Mutex;

use serde_json::{Value, json};

use super::http::{Request, Response};

/// The clipping jobs, oldest first.
#[derive(Default)]
pub struct Clippings {
    jobs: Mutex<Vec<Value>>,
}

impl Clippings {
    /// `POST /clipping`.
    pub fn create(&self, request: &Request) -> Response {
        let body = request.json();
        if !body["url"].is_string() {
            return bad_request(json!(["url must be a URL address"]));
        }
        let mut jobs = self.jobs.lock().expect("no handler panics");
        let id = format!("clip-{}", jobs.len() + 1);
        jobs.push(json!({
            "id": id, "url": body["url"], "status": STATES[0], "error": null, "title": "A long talk",
            "thumbnail": null, "duration": 3600, "createdAt": "2026-01-15T09:00:00.000Z", "clips": [],
        }));
        Response::json(201, &json!({ "id": id }))
    }

    /// `GET /clipping/:id`: each request moves the job to its next state.
    pub fn status(&self, id: &str) -> Response {
        let mut jobs = self.jobs.lock().expect("no handler panics");
        let Some(job) = jobs.iter_mut().find(|job| job["id"] == id) else {
            return Response::json(
                404,
                &json!({"statusCode": 404, "message": "Clipping not found"}),
            );
        };
        let answer = job.clone();
        let place = STATES.iter().position(|state| job["status"] == *state);
        let next = STATES[(place.unwrap_or_default() + 1).min(STATES.len() - 1)];
        job["status"] = json!(next);
        if next == "completed" {
            job["clips"] = json!([{"id": "c1", "path": "https://uploads.example.com/c1.mp4"}]);
        }
        Response::json(200, &answer)
    }

    /// `GET /clipping`.
    pub fn list(&self) -> Response {
        let jobs = self.jobs.lock().expect("no handler panics");
        Response::json(200, &json!({"pages": 1, "results": *jobs}))
    }
}

/// `GET /media`: two pages of one file each.
pub fn library(request: &Request) -> Response {
    let page = request.query("page").unwrap_or_default();
    let search = request.query("search").unwrap_or_default();
    let name = match page.as_str() {
        "1" => "photo.png",
        "2" => "clip.mp4",
        _ => return bad_request(json!(["page must not be less than 1"])),
    };
    let file = json!({
        "id": format!("media-{page}"), "name": name, "originalName": name,
        "path": format!("https://uploads.example.com/{name}"),
    });
    let found: Vec<Value> = Some(file)
        .filter(|_| name.contains(&search))
        .into_iter()
        .collect();
    Response::json(200, &json!({"pages": 2, "results": found}))
}

/// `GET /social/:provider`: the URL of the page that connects a channel.
pub fn connect_page(provider: &str) -> Response {
    match provider {
        "x" | "linkedin" | "youtube" => {
            let url = format!("https://{provider}.example.com/oauth?state=s1");
            Response::json(200, &json!({ "url": url }))
        }
        _ => Response::json(400, &json!({"msg": "Integration not allowed"})),
    }
}

/// `GET /find-slot/:id`: a time in UTC, without a zone.
pub fn free_slot() -> Response {
    Response::json(200, &json!({"date": "2030-01-17T09:00:00"}))
}

/// `GET /notifications`: one about a failed post.
pub fn notifications(request: &Request) -> Response {
    let page: u64 = request
        .query("page")
        .and_then(|page| page.parse().ok())
        .unwrap_or(0);
    let failed = json!({
        "id": "n1", "content": "Your post on X failed: the text is too long", "link": null,
        "createdAt": "2026-01-15T09:00:00.000Z",
    });
    let all: Vec<Value> = Some(failed).filter(|_| page == 0).into_iter().collect();
    let body =
        json!({"notifications": all, "total": 1, "page": page, "limit": 100, "hasMore": false});
    Response::json(200, &body)
}

/// `GET /me`: an API key belongs to no person.
pub fn me(person: Option<&str>) -> Response {
    let organization = super::oauth::organization_of(person.unwrap_or("key"));
    let user = person
        .map(|person| json!({"id": format!("user-{person}"), "name": person, "picture": null}));
    let organization = json!({"id": organization, "name": "Ada Works"});
    Response::json(200, &json!({"organization": organization, "user": user}))
}

fn bad_request(message: Value) -> Response {
    Response::json(400, &json!({"statusCode": 400, "message": message}))
}

/// The states of a clipping job, in this order. Instead of the last one it may be `failed`.
const STATES: [&str; 5] = [
    "analysing",
    "transcribing",
    "picking",
    "rendering",
    "completed",
];
