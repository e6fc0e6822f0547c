//! The definition: what no API server is needed for. `contract_image_set` shows it to a real one.

use super::*;

fn schema(pointer: &str) -> Value {
    let path = format!("/spec/versions/0/schema/openAPIV3Schema/properties{pointer}");
    definition().pointer(&path).cloned().unwrap_or_else(|| panic!("no {path}"))
}

#[test]
fn a_name_is_part_of_a_label() {
    assert_eq!(schema("/metadata/properties/name")["maxLength"], 63);
    let longest = "a".repeat(63);
    let label = shared::label::set_label(&longest, &longest);
    assert!(label.split_once('/').is_some_and(|(prefix, name)| prefix.len() <= 253 && name.len() <= 63));
}

#[test]
fn what_people_type_is_short() {
    let definition = definition();
    let names = &definition["spec"]["names"];
    assert_eq!((&names["shortNames"][0], &names["plural"]), (&json!("imgset"), &json!(PLURAL)));
    assert_eq!(definition["metadata"]["name"], format!("{PLURAL}.{GROUP}"));
    let version = &definition["spec"]["versions"][0];
    assert_eq!(version["subresources"], json!({ "status": {} }));
    let columns: Vec<&str> =
        version["additionalPrinterColumns"].as_array().unwrap().iter().filter_map(|c| c["name"].as_str()).collect();
    assert_eq!(columns[..5], ["Ready", "Desired", "Warm", "Pending", "Failed"]);
}

#[test]
fn nobody_but_the_controller_fills_in_a_status_and_no_description_is_broken() {
    let text = definition().to_string();
    assert!(!schema("/status").to_string().contains("\"default\""));
    assert!(schema("/spec").to_string().contains("\"default\":50"));
    assert!(!text.contains("\\n"), "{text}");
}
