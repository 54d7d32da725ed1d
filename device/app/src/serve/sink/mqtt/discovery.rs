//! What Home Assistant is told so that the service appears there by itself: two sensors of one device, as its MQTT integration
//! documents them (<https://www.home-assistant.io/integrations/sensor.mqtt/>).

use serde_json::{Value, json};

/// Where Home Assistant looks for devices unless it is told.
const PREFIX: &str = "homeassistant";
/// Where it says that it has started.
pub(super) const STATUS_TOPIC: &str = "homeassistant/status";
/// What it says then.
pub(super) const STARTED: &[u8] = b"online";
/// More labels than these are not listed: the list is for choosing from.
const MAX_OPTIONS: usize = 200;
/// Characters of a state, at most; a longer one is refused.
const MAX_STATE: usize = 255;

/// What a sensor's configuration is made of.
#[derive(Debug)]
pub(super) struct Described<'a> {
    /// Tells this service from all others, now and after its next start.
    pub(super) id: &'a str,
    /// For people: the name of the board.
    pub(super) name: &'a str,
    pub(super) state_topic: &'a str,
    pub(super) availability_topic: &'a str,
    /// The labels that the model knows.
    pub(super) labels: &'a [String],
    pub(super) model_version: &'a str,
}

/// A topic for each sensor, and what is to be retained there.
pub(super) fn configurations(described: &Described) -> [(String, Value); 2] {
    let mut label = sensor(described, "label", "Label");
    // An unknown label is null, which is written as None, which Home Assistant takes for an unknown state.
    label["value_template"] = "{{ value_json.label }}".into();
    label["json_attributes_topic"] = described.state_topic.into();
    label["icon"] = "mdi:label".into();
    let short = |label: &String| label.chars().count() <= MAX_STATE;
    if described.labels.len() <= MAX_OPTIONS && described.labels.iter().all(short) {
        label["device_class"] = "enum".into();
        label["options"] = described.labels.into();
    } else {
        label["value_template"] =
            format!("{{{{ (value_json.label | string)[:{MAX_STATE}] }}}}").into();
    }
    let mut score = sensor(described, "score", "Score");
    score["value_template"] = "{{ (value_json.score * 100) | round(1) }}".into();
    score["unit_of_measurement"] = "%".into();
    score["state_class"] = "measurement".into();
    score["suggested_display_precision"] = 0.into();
    score["icon"] = "mdi:percent".into();
    let topic = |object: &str| format!("{PREFIX}/sensor/{}/{object}/config", described.id);
    [(topic("label"), label), (topic("score"), score)]
}

/// What both have.
fn sensor(described: &Described, object: &str, name: &str) -> Value {
    let version = env!("CARGO_PKG_VERSION");
    json!({
        "name": name,
        "unique_id": format!("{}_{object}", described.id),
        "state_topic": described.state_topic,
        "availability_topic": described.availability_topic,
        "qos": 1,
        "device": {
            "identifiers": [described.id],
            "name": described.name,
            "manufacturer": "Graft",
            "model": format!("model {}", described.model_version),
            "sw_version": version,
        },
        "origin": { "name": "graft-device", "sw_version": version },
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// The fields of a sensor, of its `device` and of its `origin` that Home Assistant's documentation names and we use, with the
    /// type of each.
    const SENSOR: [(&str, &str); 15] = [
        ("availability_topic", "string"),
        ("device", "map"),
        ("device_class", "string"),
        ("icon", "string"),
        ("json_attributes_topic", "string"),
        ("name", "string"),
        ("options", "list"),
        ("origin", "map"),
        ("qos", "integer"),
        ("state_class", "string"),
        ("state_topic", "string"),
        ("suggested_display_precision", "integer"),
        ("unique_id", "string"),
        ("unit_of_measurement", "string"),
        ("value_template", "string"),
    ];
    const DEVICE: [(&str, &str); 5] = [
        ("identifiers", "list"),
        ("manufacturer", "string"),
        ("model", "string"),
        ("name", "string"),
        ("sw_version", "string"),
    ];
    const ORIGIN: [(&str, &str); 2] = [("name", "string"), ("sw_version", "string")];

    fn described(labels: &[String]) -> [(String, Value); 2] {
        configurations(&Described {
            id: "graft_0123456789ab",
            name: "board",
            state_topic: "a/state",
            availability_topic: "a/availability",
            labels,
            model_version: "3f0c12ab97de",
        })
    }

    #[track_caller]
    fn check(value: &Value, fields: &[(&str, &str)]) {
        for (name, value) in value.as_object().unwrap() {
            let kind = match value {
                Value::String(text) if !text.is_empty() => "string",
                Value::Number(number) if number.is_u64() => "integer",
                Value::Array(items) if !items.is_empty() && items.iter().all(Value::is_string) => {
                    "list"
                }
                Value::Object(_) => "map",
                _ => "another",
            };
            let field = (name.as_str(), kind);
            assert!(fields.contains(&field), "{field:?}");
        }
    }

    #[test]
    fn the_fields_are_those_that_home_assistant_documents() {
        let many: Vec<String> = (0..1_000).map(|number| number.to_string()).collect();
        for labels in [&many[..2], &many] {
            for (topic, sensor) in described(labels) {
                check(&sensor, &SENSOR);
                check(&sensor["device"], &DEVICE);
                check(&sensor["origin"], &ORIGIN);
                // Required: of a sensor its topic, of a device something to know it by, of an origin its name. Without a
                // unique_id there is no device.
                for required in ["state_topic", "unique_id"] {
                    assert!(sensor[required].is_string());
                }
                // Options are for enumerations alone, which have no unit and no statistics.
                assert_eq!(
                    sensor["options"].is_array(),
                    sensor["device_class"] == "enum"
                );
                if sensor["device_class"] == "enum" {
                    assert!(sensor["unit_of_measurement"].is_null());
                    assert!(sensor["state_class"].is_null());
                }
                // <prefix>/<component>/<node id>/<object id>/config, the ids of letters, digits, _ and -.
                let parts: Vec<_> = topic.split('/').collect();
                assert_eq!(parts.len(), 5);
                assert_eq!(
                    (parts[0], parts[1], parts[4]),
                    ("homeassistant", "sensor", "config")
                );
                let plain = |letter: char| letter.is_ascii_alphanumeric() || "_-".contains(letter);
                assert!(parts[2..4].iter().all(|part| part.chars().all(plain)));
            }
        }
    }

    #[test]
    fn sensors_of_one_device_differ() {
        let [(first_topic, first), (second_topic, second)] = described(&["rose".to_owned()]);
        assert_ne!(first_topic, second_topic);
        assert_ne!(first["unique_id"], second["unique_id"]);
        assert_eq!(first["device"], second["device"]);
    }
}
