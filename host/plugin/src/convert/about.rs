//! What a plugin says that it is.

use serde_json::Value;

use super::{Garbage, one_text};
use crate::bindings::exports::dormouse::plugin::about as wit;
use crate::types::{Description, WantedGrant};

/// Bytes of a JSON text.
const JSON: usize = 64 << 10;
/// Grants that it may want.
const WANTS: usize = 64;

/// A description whose JSON is JSON.
pub(crate) fn description(said: wit::Description) -> Result<Description, Garbage> {
    if said.wants.len() > WANTS {
        return Err(Garbage(format!(
            "{} wanted grants, at most {WANTS} are allowed",
            said.wants.len()
        )));
    }
    let config_schema = said
        .config_schema
        .as_deref()
        .map(|text| json("the config-schema", text));
    Ok(Description {
        title: one_text(said.title),
        version: one_text(said.version),
        config_schema: config_schema.transpose()?,
        wants: said.wants.into_iter().map(wanted).collect::<Result<_, _>>()?,
    })
}

fn wanted(grant: wit::WantedGrant) -> Result<WantedGrant, Garbage> {
    let value = json("the value of a wanted grant", &grant.value)?;
    Ok(WantedGrant {
        name: one_text(grant.name),
        value,
        why: one_text(grant.why),
    })
}

fn json(what: &str, text: &str) -> Result<Value, Garbage> {
    if text.len() > JSON {
        return Err(Garbage(format!("{what} has more than {JSON} bytes")));
    }
    serde_json::from_str(text).map_err(|error| Garbage(format!("{what} is no JSON: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(schema: Option<&str>, value: &str) -> wit::Description {
        wit::Description {
            title: "Office\nhours".to_owned(),
            version: "1.2.0".to_owned(),
            config_schema: schema.map(str::to_owned),
            wants: vec![wit::WantedGrant {
                name: "events".to_owned(),
                value: value.to_owned(),
                why: "to say what is wrong".to_owned(),
            }],
            extra: Vec::new(),
        }
    }

    #[test]
    fn a_description_is_text_of_one_line_and_json() {
        let known = description(said(Some(r#"{"type": "object"}"#), "true")).unwrap();
        assert_eq!(known.title, r"Office\nhours");
        assert_eq!(known.wants[0].value, Value::Bool(true));
        let wrong = description(said(Some("{"), "true")).unwrap_err();
        assert!(wrong.0.starts_with("the config-schema is no JSON"), "{wrong:?}");
        assert!(description(said(None, "yes")).is_err());
    }
}
