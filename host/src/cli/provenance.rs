//! SLSA provenance v1 from what a CI system says of its own run in the environment.
//!
//! It is the signer's word, no more: whoever holds the key could say something else (SLSA Build level 1). Where the platform itself
//! attests, take its bundle with `sign --import-bundle`. Nothing is made up: what the environment does not say is an error.

use serde_json::{Value, json};

use super::error::CliError;

/// The predicate type.
pub const SLSA: &str = "https://slsa.dev/provenance/v1";

/// Which environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Platform {
    /// Whichever of these it is.
    Auto,
    /// GitHub Actions.
    Github,
    /// GitLab CI.
    Gitlab,
    /// PORTCULLIS_SOURCE_URI, PORTCULLIS_SOURCE_COMMIT, PORTCULLIS_BUILDER_ID and, if there is one, PORTCULLIS_INVOCATION_ID.
    Generic,
}

/// Looks up a variable; empty is absent.
type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The predicate.
pub fn predicate(platform: Platform, read: Lookup<'_>) -> Result<Value, CliError> {
    let mut found = Variables { read, missing: Vec::new() };
    let says = |name: &str| read(name).as_deref() == Some("true");
    let (name, predicate) = match platform {
        Platform::Github => ("GitHub Actions", github(&mut found)),
        Platform::Gitlab => ("GitLab CI", gitlab(&mut found)),
        Platform::Generic => ("the generic variables", generic(&mut found)),
        Platform::Auto if says("GITHUB_ACTIONS") => ("GitHub Actions", github(&mut found)),
        Platform::Auto if says("GITLAB_CI") => ("GitLab CI", gitlab(&mut found)),
        Platform::Auto => ("the generic variables", generic(&mut found)),
    };
    if found.missing.is_empty() {
        return Ok(predicate);
    }
    let message = format!("there is no provenance to take from {name}: {} not set", found.missing.join(", "));
    Err(CliError::usage(message).with_hint(
        "run it in a CI job, name the platform with --provenance=github|gitlab|generic, or set the PORTCULLIS_ variables",
    ))
}

struct Variables<'a> {
    read: Lookup<'a>,
    missing: Vec<String>,
}

impl Variables<'_> {
    fn need(&mut self, name: &str) -> String {
        (self.read)(name).unwrap_or_else(|| {
            self.missing.push(name.to_owned());
            String::new()
        })
    }

    fn may(&self, name: &str) -> Option<String> {
        (self.read)(name)
    }
}

/// The build type that GitHub documents for workflows.
fn github(found: &mut Variables<'_>) -> Value {
    let (server, repository) = (found.need("GITHUB_SERVER_URL"), found.need("GITHUB_REPOSITORY"));
    let (reference, commit) = (found.need("GITHUB_REF"), found.need("GITHUB_SHA"));
    let (run, attempt) = (found.need("GITHUB_RUN_ID"), found.need("GITHUB_RUN_ATTEMPT"));
    let workflow = found.need("GITHUB_WORKFLOW_REF");
    // owner/repository/path@ref
    let path = workflow.split('@').next().unwrap_or_default();
    let path = path.strip_prefix(&format!("{repository}/")).unwrap_or(path);
    json!({
        "buildDefinition": {
            "buildType": "https://actions.github.io/buildtypes/workflow/v1",
            "externalParameters": {
                "workflow": { "ref": reference, "repository": format!("{server}/{repository}"), "path": path },
            },
            "internalParameters": {
                "github": {
                    "event_name": found.may("GITHUB_EVENT_NAME"),
                    "repository_id": found.may("GITHUB_REPOSITORY_ID"),
                    "repository_owner_id": found.may("GITHUB_REPOSITORY_OWNER_ID"),
                    "runner_environment": found.may("RUNNER_ENVIRONMENT"),
                },
            },
            "resolvedDependencies": [
                { "uri": format!("git+{server}/{repository}@{reference}"), "digest": { "gitCommit": commit } },
            ],
        },
        "runDetails": {
            "builder": { "id": format!("{server}/{workflow}") },
            "metadata": { "invocationId": format!("{server}/{repository}/actions/runs/{run}/attempts/{attempt}") },
        },
    })
}

fn gitlab(found: &mut Variables<'_>) -> Value {
    let (project, commit) = (found.need("CI_PROJECT_URL"), found.need("CI_COMMIT_SHA"));
    let (reference, job) = (found.need("CI_COMMIT_REF_NAME"), found.need("CI_JOB_URL"));
    let config = found.may("CI_CONFIG_PATH").unwrap_or_else(|| ".gitlab-ci.yml".to_owned());
    json!({
        "buildDefinition": {
            "buildType": "https://portcullis.dev/buildtypes/gitlab-ci/v1",
            "externalParameters": {
                "source": project, "ref": reference, "config": config, "job": found.need("CI_JOB_NAME"),
            },
            "internalParameters": {
                "project_id": found.may("CI_PROJECT_ID"),
                "pipeline_source": found.may("CI_PIPELINE_SOURCE"),
                "runner_id": found.may("CI_RUNNER_ID"),
                "ref_protected": found.may("CI_COMMIT_REF_PROTECTED"),
            },
            "resolvedDependencies": [
                { "uri": format!("git+{project}@{reference}"), "digest": { "gitCommit": commit } },
            ],
        },
        "runDetails": {
            "builder": { "id": format!("{project}//{config}") },
            "metadata": { "invocationId": job },
        },
    })
}

fn generic(found: &mut Variables<'_>) -> Value {
    let (source, commit) = (found.need("PORTCULLIS_SOURCE_URI"), found.need("PORTCULLIS_SOURCE_COMMIT"));
    let invocation = found.may("PORTCULLIS_INVOCATION_ID");
    json!({
        "buildDefinition": {
            "buildType": "https://portcullis.dev/buildtypes/generic/v1",
            "externalParameters": { "source": source },
            "resolvedDependencies": [{ "uri": source, "digest": { "gitCommit": commit } }],
        },
        "runDetails": {
            "builder": { "id": found.need("PORTCULLIS_BUILDER_ID") },
            "metadata": { "invocationId": invocation },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(platform: Platform, variables: &[(&str, &str)]) -> Result<Value, CliError> {
        let read =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        predicate(platform, &read)
    }

    const GITHUB: &[(&str, &str)] = &[
        ("GITHUB_ACTIONS", "true"),
        ("GITHUB_SERVER_URL", "https://github.example"),
        ("GITHUB_REPOSITORY", "acme/orders"),
        ("GITHUB_REF", "refs/heads/main"),
        ("GITHUB_SHA", "0123456789012345678901234567890123456789"),
        ("GITHUB_RUN_ID", "7"),
        ("GITHUB_RUN_ATTEMPT", "2"),
        ("GITHUB_WORKFLOW_REF", "acme/orders/.github/workflows/ci.yml@refs/heads/main"),
    ];

    #[test]
    fn each_platform_is_recognised_and_says_source_commit_builder_and_run() {
        let github = made(Platform::Auto, GITHUB).unwrap();
        assert_eq!(
            github.pointer("/buildDefinition/externalParameters/workflow/path"),
            Some(&json!(".github/workflows/ci.yml"))
        );
        assert_eq!(
            github.pointer("/runDetails/metadata/invocationId"),
            Some(&json!("https://github.example/acme/orders/actions/runs/7/attempts/2"))
        );
        let gitlab = made(
            Platform::Auto,
            &[
                ("GITLAB_CI", "true"),
                ("CI_PROJECT_URL", "https://gitlab.example/acme/orders"),
                ("CI_COMMIT_SHA", "01"),
                ("CI_COMMIT_REF_NAME", "main"),
                ("CI_JOB_URL", "https://gitlab.example/acme/orders/-/jobs/9"),
                ("CI_JOB_NAME", "sign"),
            ],
        )
        .unwrap();
        assert_eq!(
            gitlab.pointer("/runDetails/builder/id"),
            Some(&json!("https://gitlab.example/acme/orders//.gitlab-ci.yml"))
        );
        let generic = made(
            Platform::Auto,
            &[
                ("PORTCULLIS_SOURCE_URI", "git+https://x.example"),
                ("PORTCULLIS_SOURCE_COMMIT", "01"),
                ("PORTCULLIS_BUILDER_ID", "b"),
            ],
        )
        .unwrap();
        for predicate in [github, gitlab, generic] {
            assert!(predicate.pointer("/buildDefinition/resolvedDependencies/0/digest/gitCommit").is_some());
            assert!(predicate.pointer("/runDetails/builder/id").is_some());
        }
    }

    #[test]
    fn what_the_environment_does_not_say_is_not_made_up() {
        let error = made(Platform::Auto, &[]).unwrap_err();
        assert!(error.message().contains("PORTCULLIS_SOURCE_URI, PORTCULLIS_SOURCE_COMMIT"), "{}", error.message());
        let error = made(Platform::Github, &GITHUB[..4]).unwrap_err();
        for missing in ["GITHUB_SHA", "GITHUB_RUN_ID", "GITHUB_WORKFLOW_REF"] {
            assert!(error.message().contains(missing), "{}", error.message());
        }
        assert!(!error.message().contains("GITHUB_REF,"), "{}", error.message());
    }
}
