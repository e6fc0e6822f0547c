//! Objects of well-known projects, trimmed, and the images that the presets find in them.

use rstest::rstest;
use serde_json::json;

use super::super::object::Object;
use super::*;
use crate::config::DiscoverSettings;

fn preset(name: &str, kind: &str) -> Configured {
    let presets = DiscoverSettings::presets();
    Configured::new(presets[name].iter().find(|settings| settings.kind == kind).unwrap())
}

#[allow(clippy::needless_pass_by_value, reason = "shorter calls")]
fn read(kind: &Configured, spec: Value, status: Value) -> Workload {
    let json = json!({ "metadata": { "namespace": "shop", "name": "x", "uid": "u" }, "spec": spec, "status": status });
    let object: Object<Value> = serde_json::from_value(json).unwrap();
    kind.workload(&object.meta, object.content.unwrap()).unwrap()
}

fn found(workload: &Workload) -> Vec<(&str, &str)> {
    workload.every_image().map(|image| (image.position.as_str(), image.image.as_str())).collect()
}

/// A pod template with one container.
fn template(image: &str) -> Value {
    json!({ "metadata": { "labels": { "a": "b" } }, "spec": { "containers": [{ "name": "c", "image": image }] } })
}

#[rstest]
#[case::rollout("argo-rollouts", "Rollout", json!({ "strategy": { "canary": {} }, "template": template("argoproj/rollouts-demo:blue") }),
    &[("spec.template containers[0] \"c\"", "argoproj/rollouts-demo:blue")])]
#[case::knative_service("knative-serving", "Service",
    json!({ "template": { "spec": { "containerConcurrency": 0, "containers": [{ "image": "ghcr.io/knative/helloworld-go:latest" }] } } }),
    &[("spec.template containers[0] \"\"", "ghcr.io/knative/helloworld-go:latest")])]
#[case::knative_revision("knative-serving", "Revision",
    json!({ "containers": [{ "name": "user-container", "image": "ghcr.io/knative/helloworld-go@sha256:2b" }] }),
    &[("spec containers[0] \"user-container\"", "ghcr.io/knative/helloworld-go@sha256:2b")])]
#[case::jobset("jobset", "JobSet",
    json!({ "replicatedJobs": [
        { "name": "leader", "template": { "spec": { "template": template("bash:latest") } } },
        { "name": "workers", "template": { "spec": { "template": template("pytorch/pytorch:2.6") } } }] }),
    &[("spec.replicatedJobs[0].template.spec.template containers[0] \"c\"", "bash:latest"),
      ("spec.replicatedJobs[1].template.spec.template containers[0] \"c\"", "pytorch/pytorch:2.6")])]
#[case::leader_worker_set("leaderworkerset", "LeaderWorkerSet",
    json!({ "leaderWorkerTemplate": { "size": 4, "leaderTemplate": template("vllm/vllm-openai:v0.8"), "workerTemplate": template("vllm/vllm-openai:v0.8") } }),
    &[("spec.leaderWorkerTemplate.leaderTemplate containers[0] \"c\"", "vllm/vllm-openai:v0.8"),
      ("spec.leaderWorkerTemplate.workerTemplate containers[0] \"c\"", "vllm/vllm-openai:v0.8")])]
#[case::ray_cluster("kuberay", "RayCluster",
    json!({ "headGroupSpec": { "rayStartParams": {}, "template": template("rayproject/ray:2.46.0") },
            "workerGroupSpecs": [{ "groupName": "gpu", "template": template("rayproject/ray:2.46.0-gpu") }] }),
    &[("spec.headGroupSpec.template containers[0] \"c\"", "rayproject/ray:2.46.0"),
      ("spec.workerGroupSpecs[0].template containers[0] \"c\"", "rayproject/ray:2.46.0-gpu")])]
#[case::ray_service("kuberay", "RayService",
    json!({ "rayClusterConfig": { "headGroupSpec": { "template": template("rayproject/ray-ml:2.46.0") } } }),
    &[("spec.rayClusterConfig.headGroupSpec.template containers[0] \"c\"", "rayproject/ray-ml:2.46.0")])]
#[case::pytorch_job("kubeflow", "PyTorchJob",
    json!({ "pytorchReplicaSpecs": { "Master": { "replicas": 1, "template": template("kubeflow/pytorch-dist-mnist:1") },
                                     "Worker": { "replicas": 3, "template": template("kubeflow/pytorch-dist-mnist:1") } } }),
    &[("spec.pytorchReplicaSpecs.Master.template containers[0] \"c\"", "kubeflow/pytorch-dist-mnist:1"),
      ("spec.pytorchReplicaSpecs.Worker.template containers[0] \"c\"", "kubeflow/pytorch-dist-mnist:1")])]
#[case::workflow("argo-workflows", "Workflow",
    json!({ "entrypoint": "main", "templates": [
        { "name": "main", "steps": [[{ "name": "a", "template": "say" }]] },
        { "name": "say", "container": { "image": "docker/whalesay:latest" }, "sidecars": [{ "name": "nginx", "image": "nginx:1.27" }] },
        { "name": "gen", "script": { "image": "python:alpine3.20", "source": "print(1)" } },
        { "name": "any", "container": { "image": "{{inputs.parameters.image}}" } }] }),
    &[("spec.templates[1].container.image", "docker/whalesay:latest"), ("spec.templates[2].script.image", "python:alpine3.20"),
      ("spec.templates[1].sidecars[0].image", "nginx:1.27")])]
#[case::cron_workflow("argo-workflows", "CronWorkflow",
    json!({ "schedules": ["* * * * *"], "workflowSpec": { "templates": [{ "name": "say", "container": { "image": "alpine:3.20" } }] } }),
    &[("spec.workflowSpec.templates[0].container.image", "alpine:3.20")])]
#[case::task("tekton", "Task",
    json!({ "steps": [{ "name": "build", "image": "gcr.io/kaniko-project/executor:v1.23.2" }, { "name": "any", "image": "$(params.image)" }],
            "sidecars": [{ "name": "dind", "image": "docker:27-dind" }] }),
    &[("spec.steps[0].image", "gcr.io/kaniko-project/executor:v1.23.2"), ("spec.sidecars[0].image", "docker:27-dind")])]
#[case::pipeline("tekton", "Pipeline",
    json!({ "tasks": [{ "name": "a", "taskRef": { "name": "x" } }, { "name": "b", "taskSpec": { "steps": [{ "image": "golang:1.23" }] } }] }),
    &[("spec.tasks[1].taskSpec.steps[0].image", "golang:1.23")])]
#[case::clone_set("openkruise", "CloneSet", json!({ "template": template("nginx:alpine") }),
    &[("spec.template containers[0] \"c\"", "nginx:alpine")])]
#[case::advanced_cron_job("openkruise", "AdvancedCronJob",
    json!({ "template": { "broadcastJobTemplate": { "spec": { "template": template("busybox:1.36") } } } }),
    &[("spec.template.broadcastJobTemplate.spec.template containers[0] \"c\"", "busybox:1.36")])]
#[case::deployment_config("openshift", "DeploymentConfig", json!({ "triggers": [], "template": template("openshift/hello-openshift:latest") }),
    &[("spec.template containers[0] \"c\"", "openshift/hello-openshift:latest")])]
fn a_preset_finds_the_images_of_what_it_is_for(
    #[case] name: &str,
    #[case] kind: &str,
    #[case] spec: Value,
    #[case] images: &[(&str, &str)],
) {
    let read = read(&preset(name, kind), spec, json!({}));
    assert_eq!(found(&read), images);
    assert!(read.problems.is_empty() && !read.ended, "{read:?}");
}

#[rstest]
#[case("jobset", "JobSet", json!({ "conditions": [{ "type": "Completed", "status": "True" }] }), true)]
#[case("jobset", "JobSet", json!({ "conditions": [{ "type": "StartupPolicyCompleted", "status": "True" }] }), false)]
#[case("kuberay", "RayJob", json!({ "jobDeploymentStatus": "Complete" }), true)]
#[case("kuberay", "RayJob", json!({ "jobDeploymentStatus": "Running" }), false)]
#[case("kubeflow", "PyTorchJob", json!({ "conditions": [{ "type": "Running", "status": "False" }, { "type": "Failed", "status": "True" }] }), true)]
#[case("argo-workflows", "Workflow", json!({ "phase": "Error" }), true)]
#[case("argo-workflows", "Workflow", json!({ "phase": "Running" }), false)]
#[case("tekton", "TaskRun", json!({ "conditions": [{ "type": "Succeeded", "status": "False" }] }), true)]
#[case("tekton", "TaskRun", json!({ "conditions": [{ "type": "Succeeded", "status": "Unknown" }] }), false)]
fn what_runs_once_has_ended_when_its_status_says_so(
    #[case] name: &str,
    #[case] kind: &str,
    #[case] status: Value,
    #[case] ended: bool,
) {
    assert_eq!(read(&preset(name, kind), json!({}), status).ended, ended);
}

#[test]
fn each_template_keeps_its_own_constraint() {
    let mut worker = template("rayproject/ray:gpu");
    worker["spec"]["nodeSelector"] = json!({ "gpu": "yes" });
    let spec = json!({ "headGroupSpec": { "template": template("rayproject/ray") }, "workerGroupSpecs": [{ "template": worker }] });
    let read = read(&preset("kuberay", "RayCluster"), spec, json!({}));
    assert!(read.constraint.node_selector.is_empty());
    assert_eq!(read.more[0].constraint.node_selector["gpu"], "yes");
}

#[test]
fn a_rollout_may_refer_to_the_template_of_another_object() {
    let reference = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "name": "web" });
    let read = read(&preset("argo-rollouts", "Rollout"), json!({ "workloadRef": reference }), json!({}));
    assert_eq!(read.template_of.unwrap().to_string(), "Deployment/shop/web");
    assert!(read.images.is_empty() && read.problems.is_empty());
}

#[test]
fn what_a_path_finds_and_cannot_be_used_spoils_only_itself() {
    let settings = KindSettings {
        group: "example.com".into(),
        version: "v1".into(),
        kind: "Thing".into(),
        templates: vec!["$.spec.templates[*]".into()],
        images: vec!["$.spec.image".into(), "$.spec.other".into()],
        workload_ref: Some("$.spec.ref".into()),
        ..KindSettings::default()
    };
    let spec = json!({
        "templates": [template("good:1"), "text", { "spec": { "containers": 7 } }, null, {}],
        "image": "also:1", "other": 5, "ref": { "kind": "Deployment" },
    });
    let read = read(&Configured::new(&settings), spec, json!({}));
    let images: Vec<_> = read.images.iter().map(|image| image.image.as_str()).collect();
    assert_eq!(images, ["good:1", "also:1"]);
    let said = read.problems.join("\n");
    for part in [
        "spec.templates[1]: is neither",
        "spec.templates[2]: ",
        "spec.other: is no image reference but 5",
        "spec.ref: ",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(read.problems.len(), 4, "{said}");
}

#[test]
fn a_plural_that_is_not_given_is_the_usual_one() {
    let settings =
        KindSettings { group: "a.b".into(), version: "v1".into(), kind: "Thing".into(), ..Default::default() };
    assert_eq!(Configured::new(&settings).api().plural, "things");
    assert_eq!(path_problem("$.spec.template"), None);
    assert!(path_problem("spec.template").is_some());
}
