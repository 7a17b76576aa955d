//! The part of Postiz' public API that the CLI uses, with a few channels and an in-memory list of posts.
//! POST answers 201, all other methods 200, and errors have Postiz' several formats.

use std::sync::Mutex;

use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::http::{Request, Response};
use super::media::{self, Clippings};

/// The organisation's data.
pub struct Api {
    posts: Mutex<Vec<Value>>,
    clippings: Clippings,
}

impl Api {
    /// It has one published post without a link, for `posts:missing`, and one scheduled post, for `posts:update`.
    pub fn new() -> Api {
        let lost = json!({
            "id": "post-lost", "content": "Hello", "publishDate": "2026-01-15T09:00:00.000Z",
            "releaseURL": null, "releaseId": "missing", "state": "PUBLISHED", "group": "group-lost",
            "integration": {"id": "ch-youtube", "providerIdentifier": "youtube", "name": "Ada on video"},
        });
        let waiting = json!({
            "id": "post-waiting", "content": "Later", "publishDate": "2030-01-20T09:00:00.000Z",
            "releaseURL": null, "releaseId": null, "state": "QUEUE", "group": "group-waiting",
            "intervalInDays": 7, "settings": "{\"post_type\":\"post\",\"n\":1.0}",
            "tags": [{"tag": {"name": "weekly"}}],
            "integration": {"id": "ch-linkedin", "providerIdentifier": "linkedin", "name": "Ada Works"},
        });
        Api {
            posts: Mutex::new(vec![lost, waiting]),
            clippings: Clippings::default(),
        }
    }

    /// Answers a request with valid credentials. `path` is the path after `/public/v1/`, and `person` the owner of the token.
    pub fn answer(&self, request: &Request, path: &str, person: Option<&str>) -> Response {
        let decode = |s: &str| percent_decode_str(s).decode_utf8_lossy().into_owned();
        let segments: Vec<String> = path.split('/').map(decode).collect();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        match (request.method.as_str(), segments.as_slice()) {
            ("GET", ["is-connected"]) => ok(json!({"connected": true})),
            ("GET", ["integrations"]) => list_channels(request),
            ("GET", ["groups"]) => ok(json!([{"id": "group-1", "name": "Customer One"}])),
            ("GET", ["integration-settings", id]) => channel_settings(id),
            ("POST", ["integration-trigger", id]) => trigger(request, id),
            ("GET", ["posts"]) => self.list_posts(request),
            ("POST", ["posts"]) => self.create_posts(request),
            ("DELETE", ["posts", "group", group]) => self.delete_group(group),
            ("DELETE", ["posts", id]) => self.delete_post(id),
            ("GET", ["posts", id, "missing"]) => self.missing(id),
            ("PUT", ["posts", id, "release-id"]) => self.connect(request, id),
            ("PUT", ["posts", id, "status"]) => self.set_status(request, id),
            ("PUT", ["posts", id, "settings"]) => self.set_settings(request, id),
            ("GET", ["analytics", "post", id]) => self.post_analytics(id),
            ("GET", ["analytics", id]) => channel_analytics(id),
            ("POST", ["upload"]) => upload(request),
            ("GET", ["me"]) => media::me(person),
            ("GET", ["media"]) => media::library(request),
            ("GET", ["social", provider]) => media::connect_page(provider),
            ("GET", ["find-slot", id]) if channel_exists(id) => media::free_slot(),
            ("GET", ["notifications"]) => media::notifications(request),
            ("POST", ["clipping"]) => self.clippings.create(request),
            ("GET", ["clipping"]) => self.clippings.list(),
            ("GET", ["clipping", id]) => self.clippings.status(id),
            _ => not_found(request),
        }
    }

    fn list_posts(&self, request: &Request) -> Response {
        let required = ["startDate", "endDate"];
        let missing = required.iter().filter(|n| request.query(n).is_none());
        let messages: Vec<String> = missing
            .map(|n| format!("{n} must be a valid ISO 8601 date string"))
            .collect();
        if !messages.is_empty() {
            return bad_request(json!(messages));
        }
        ok(json!({"posts": *self.posts.lock().expect("no handler panics")}))
    }

    fn create_posts(&self, request: &Request) -> Response {
        let body = request.json();
        let parts = body["posts"].as_array().cloned().unwrap_or_default();
        if parts.is_empty() || parts.iter().any(|p| !p["integration"]["id"].is_string()) {
            return bad_request(json!("All posts must have an integration id"));
        }
        if let Some(too_long) = parts.iter().find_map(too_long) {
            return too_long;
        }
        let mut posts = self.posts.lock().expect("no handler panics");
        let mut answer = Vec::new();
        for part in parts {
            // Like Postiz, it replaces each known part as a whole.
            let known = posts.iter().position(|p| p["id"] == part["value"][0]["id"]);
            let place = known.unwrap_or(posts.len());
            let id = format!("post-{place}");
            let old = known.map(|place| posts.remove(place)).unwrap_or_default();
            let state = match body["type"].as_str() {
                Some("update") => old["state"].as_str().unwrap_or("QUEUE"),
                Some("draft") => "DRAFT",
                _ => "QUEUE",
            };
            let group = part["group"].as_str().map(str::to_owned);
            let id = old["id"].as_str().unwrap_or(&id);
            posts.insert(place, json!({
                "id": id, "content": part["value"][0]["content"], "publishDate": body["date"],
                "releaseURL": null, "releaseId": null, "state": state, "intervalInDays": body["inter"],
                "group": group.unwrap_or_else(|| format!("group-of-{id}")),
                "creationMethod": body["creationMethod"], "integration": part["integration"],
                "settings": part["settings"].to_string(), "tags": tags(&body["tags"]),
            }));
            answer.push(json!({"postId": id, "integration": part["integration"]["id"]}));
        }
        Response::json(201, &json!(answer))
    }

    fn delete_group(&self, group: &str) -> Response {
        self.posts
            .lock()
            .expect("no handler panics")
            .retain(|p| p["group"] != group);
        // Postiz' answer for success.
        ok(json!({"error": true}))
    }

    fn delete_post(&self, id: &str) -> Response {
        let mut posts = self.posts.lock().expect("no handler panics");
        let before = posts.len();
        posts.retain(|p| p["id"] != id);
        if posts.len() == before {
            return crash();
        }
        // Postiz' answer for success.
        ok(json!({"error": true}))
    }

    fn missing(&self, id: &str) -> Response {
        match self.with_post(id, |post| post["releaseId"] == "missing") {
            Some(true) => ok(json!([{"id": "vid-1", "url": "https://example.com/vid-1.jpg"}])),
            _ => ok(json!([])),
        }
    }

    fn connect(&self, request: &Request, id: &str) -> Response {
        let release = request.json()["releaseId"].clone();
        let connected = self.with_post(id, |post| {
            let was_missing = post["releaseId"] == "missing";
            if was_missing {
                post["releaseId"] = release;
            }
            was_missing.then(|| post.clone())
        });
        connected.flatten().map_or_else(crash, ok)
    }

    fn set_status(&self, request: &Request, id: &str) -> Response {
        let state = match request.json()["status"].as_str() {
            Some("draft") => "DRAFT",
            Some("schedule") => "QUEUE",
            _ => {
                return bad_request(json!([
                    "status must be one of the following values: draft, schedule"
                ]));
            }
        };
        let changed = self.with_post(id, |post| post["state"] = json!(state));
        match changed {
            Some(()) => ok(json!({"id": id, "state": state})),
            None => bad_request(json!("Post not found")),
        }
    }

    fn set_settings(&self, request: &Request, id: &str) -> Response {
        let settings = request.json()["settings"].clone();
        if !settings.is_object() {
            return bad_request(json!(["settings must be an object"]));
        }
        match self.with_post(id, |post| post["publishDate"].clone()) {
            Some(date) => ok(json!({"postId": id, "publishDate": date})),
            None => Response::json(404, &json!({"msg": "Post not found"})),
        }
    }

    fn post_analytics(&self, id: &str) -> Response {
        match self.with_post(id, |post| post["releaseId"] == "missing") {
            Some(true) => ok(json!({"missing": true})),
            Some(false) => ok(figures()),
            None => crash(),
        }
    }

    fn with_post<T>(&self, id: &str, act: impl FnOnce(&mut Value) -> T) -> Option<T> {
        let mut posts = self.posts.lock().expect("no handler panics");
        posts.iter_mut().find(|p| p["id"] == id).map(act)
    }
}

fn channels() -> Vec<Value> {
    let channel = |id: &str, provider: &str, name: &str| {
        json!({
            "id": id, "name": name, "identifier": provider, "disabled": false,
            "picture": format!("https://example.com/{id}.png"), "profile": name,
        })
    };
    let mut channels = vec![
        channel("ch-x", "x", "Ada"),
        channel("ch-linkedin", "linkedin", "Ada Works"),
        channel("ch-youtube", "youtube", "Ada on video"),
    ];
    channels[1]["customer"] = json!({"id": "group-1", "name": "Customer One"});
    channels
}

/// The tags as they are in the list of posts.
fn tags(sent: &Value) -> Vec<Value> {
    let tags = sent.as_array().into_iter().flatten();
    tags.map(|tag| json!({"tag": {"name": tag["label"]}}))
        .collect()
}

/// The most characters that a channel accepts.
fn max_length(id: &str) -> usize {
    match id {
        "ch-x" => 280,
        "ch-linkedin" => 3000,
        _ => 5000,
    }
}

fn too_long(post: &Value) -> Option<Response> {
    let id = post["integration"]["id"].as_str()?;
    let channel = channels().into_iter().find(|c| c["id"] == id)?;
    let mut texts = post["value"]
        .as_array()?
        .iter()
        .filter_map(|part| part["content"].as_str());
    texts
        .any(|text| without_tags(text).chars().count() > max_length(id))
        .then(|| {
            let body = json!({
                "statusCode": 400, "provider": channel["identifier"], "name": channel["name"],
                "message": format!("The post is too long, the maximum is {}", max_length(id)),
            });
            Response::json(400, &body)
        })
}

fn without_tags(text: &str) -> String {
    let (first, rest) = text.split_once('<').unwrap_or((text, ""));
    let after_tags = rest
        .split('<')
        .map(|tag| tag.split_once('>').map_or("", |(_, text)| text));
    after_tags.fold(first.to_owned(), |plain, text| plain + text)
}

fn list_channels(request: &Request) -> Response {
    let group = request.query("group").filter(|g| !g.is_empty());
    let wanted = |c: &Value| group.as_ref().is_none_or(|g| c["customer"]["id"] == **g);
    ok(channels().into_iter().filter(wanted).collect())
}

fn channel_exists(id: &str) -> bool {
    channels().iter().any(|c| c["id"] == id)
}

fn channel_settings(id: &str) -> Response {
    if !channel_exists(id) {
        return Response::json(404, &json!({"msg": "Integration not found"}));
    }
    ok(json!({"output": {
        "rules": "", "maxLength": max_length(id), "settings": "No additional settings required",
        "tools": [{"methodName": "channels", "description": "Lists the channels", "dataSchema": []}],
    }}))
}

fn trigger(request: &Request, id: &str) -> Response {
    if !channel_exists(id) {
        return Response::json(404, &json!({"msg": "Integration not found"}));
    }
    match request.json()["methodName"].as_str() {
        Some("channels") => {
            let output = json!([{"id": "c1", "name": "general"}]);
            Response::json(201, &json!({"output": output}))
        }
        _ => Response::json(404, &json!({"msg": "Tool not found"})),
    }
}

fn channel_analytics(id: &str) -> Response {
    if channel_exists(id) {
        ok(figures())
    } else {
        crash()
    }
}

fn figures() -> Value {
    let data =
        json!([{"total": "12", "date": "2026-01-14"}, {"total": "30", "date": "2026-01-15"}]);
    json!([{"label": "Impressions", "data": data, "percentageChange": 150}])
}

/// Only the file's name is read.
fn upload(request: &Request) -> Response {
    let text = request.text();
    let name = text
        .split_once("filename=\"")
        .and_then(|(_, rest)| rest.split('"').next());
    let Some(name) = name else {
        return Response::json(400, &json!({"msg": "No file provided"}));
    };
    let path = format!("https://uploads.example.com/{name}");
    let answer = json!({
        "id": "media-1", "name": name, "originalName": name, "path": path, "thumbnail": null, "alt": null,
    });
    Response::json(201, &answer)
}

fn ok(body: Value) -> Response {
    Response::json(200, &body)
}

fn bad_request(message: Value) -> Response {
    Response::json(
        400,
        &json!({"statusCode": 400, "message": message, "error": "Bad Request"}),
    )
}

/// Postiz' answer to many unknown ids.
fn crash() -> Response {
    Response::json(
        500,
        &json!({"statusCode": 500, "message": "Internal server error"}),
    )
}

/// The answer of Postiz' framework to an unknown path.
pub fn not_found(request: &Request) -> Response {
    let message = format!("Cannot {} {}", request.method, request.path());
    Response::json(
        404,
        &json!({"message": message, "error": "Not Found", "statusCode": 404}),
    )
}
