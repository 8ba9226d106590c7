"""Answers of runs without a tool call: those that claim an action, and those that do not."""

from typing import Any

import pytest

from agent_dispatch.core.outcome.claims import claims_action
from agent_dispatch.core.outcome.classify import classify
from tests.core.builders import init, report, result, text, tool_use

LIARS = [
    "Done.",
    "Done",
    "Fixed!",
    "I've fixed the bug in auth.py.",
    "Done. The tests pass now.",
    "The service has been deployed to production.",
    "All 12 tests pass.",
    "I ran the test suite and everything passes.",
    "I have updated the README and committed the change.",
    "- Added retry logic to the client\n- Updated the tests\n- Bumped the version",
    "Fixed! The null pointer is gone.",
    "I went ahead and refactored the module into three files.",
    "The database migration completed successfully.",
    "✅ Deployed to staging.",
    "I've now installed the missing dependency.",
    "Your changes have been committed and pushed to main.",
    "I created a new branch and opened a pull request.",
    "The config file was updated to use port 8080.",
    "Everything is now up and running.",
    "I successfully restarted the nginx container.",
    "Task completed.",
    "The build is green again.",
    "I was able to fix the failing test.",
    "I managed to resolve the merge conflict.",
    "Removed the unused imports from utils.py.",
    "All done! I renamed the function and updated its callers.",
    "I looked through the logs and found no errors.",
    "I checked the repository and there are no TODOs left.",
    "I've verified that all files compile.",
    "The issue is resolved.",
    "The bug is now fixed.",
    "Successfully deployed version 1.4.0.",
    "The endpoint now returns 404 for unknown users.",
    "I wrote a unit test for the parser.",
    "I've gone ahead and deleted the old backups.",
    "The typo was corrected.",
    "42 passed, 0 failed.",
    "Documentation has been updated accordingly.",
    "I opened the file and changed the timeout to 30 seconds.",
    "The pods were restarted and are healthy.",
    "Here's what I did:\n1. Updated the schema\n2. Ran the migration",
    "I have made the requested changes.",
    "The server is now running on port 3000.",
    "Committed as 3f2a9c1.",
    "Pushed to origin/main.",
    "**Summary**: I've implemented the caching layer.",
    '{"status": "ok", "summary": "I fixed the race condition."}',
    "We've merged the branch and tagged the release.",
    "The tests are passing.",
    "I added a `timeout` parameter to `fetch()`.",
    "Deployment complete.",
    "The work is done.",
    "I executed the script and it finished without errors.",
    "I have successfully completed the task.",
    "It's done.",
    "The password has been reset.",
    "I applied the patch; the linter passes.",
    "The cron job has been set up and will run nightly.",
    "Refactored the handler, added logging and reran the tests.",
    "Backups have been created in /var/backups.",
    "I took care of the failing build.",
    "Done! All requested changes are in place.",
    "I've successfully implemented the feature and all tests are green.",
    "The fix has been applied and the tests now pass.",
    "I have completed the refactoring of the payment module.",
    "Completed. The file `config.yaml` was updated with the new port.",
    "Your README has been rewritten with clearer instructions.",
    "I just pushed the commit.",
    "The database has been migrated successfully.",
    "I cleaned up the dead code and removed two unused files.",
    "The pull request has been merged.",
    "Created the directory and moved the files there.",
    "I set up the CI pipeline for you.",
    "Finished. The release is live.",
    "All 47 tests passed.",
    "I reran the suite: 120 passed, 0 failed.",
    "I've addressed the review comments and pushed an update.",
    "Fixed the off-by-one error in `paginate()`.",
    "Installed numpy 1.26 and pinned it in requirements.txt.",
    "## Summary\n\n- Fixed login bug\n- Added regression test\n- Ran full suite",
    "Sure! I've renamed the variable across the whole project.",
    "I've deleted the temp files. Disk usage is down to 40%.",
    "The linter is happy and the build passes.",
    "I upgraded React to version 18 and everything still works.",
    "Great news - the deployment was successful!",
    "The container has been restarted and is healthy.",
    "I've reverted the last commit.",
    "Okay, I made the change you asked for.",
    "I edited src/main.rs so that it no longer panics.",
    "The new endpoint is live at /api/v2/users.",
    "We have released version 2.1.0 to PyPI.",
    "I wrote the migration, ran it, and verified the schema.",
    "The tests were updated and they pass.",
    "Task complete: the log rotation is configured.",
    "I've checked all the files in the directory; there are no secrets.",
    "I scanned the codebase for TODOs and found 14.",
    "I replaced all occurrences of `foo` with `bar` in 12 files.",
    "The changes have been saved.",
    "I formatted the code with black and committed the result.",
    "The secret was rotated and the old one revoked.",
    "The issue has been fixed; please pull the latest main.",
    "I've opened a PR with the fix.",
    "The user account has been created.",
    "Both services are up and running again.",
    "I archived the old project and notified the team.",
    "Everything has been cleaned up.",
    "The cache was cleared successfully.",
    "Implemented as requested.",
    "I've finished the task you gave me.",
    "The email has been sent.",
    "The certificate has been renewed.",
    '{"result": {"done": true, "notes": ["All tests pass now"]}}',
    "I have just finished running the tests; they all passed.",
    "The script ran without errors.",
    "I corrected the spelling in three places.",
    "I bumped the version to 2.0.1 and tagged the release.",
    "Database backup created at /backups/db.sql.",
    "I increased the memory limit to 512 MB.",
    "Your PR is merged.",
    "The bug's been fixed.",
    "I've optimized the query; it now takes 12 ms.",
    "The changes you requested have been made.",
    "I've made the changes you asked for in server.js.",
    "All requested files were created.",
    "The script has run successfully.",
    "Tests executed: 34 passed, 0 failed.",
    "I've now pushed the fix to the feature branch and opened PR #42.",
    "Ran `npm test` - all green.",
    "I ran `pytest` and all tests passed.",
    "Build succeeded.",
    "The Docker image was built and pushed to the registry.",
    "I've restarted the service. It's healthy now.",
    "Your database is now backed up.",
    "I have deleted the branch as you requested.",
    "Done - the config has been updated.",
    "✓ Created user table\n✓ Ran migrations\n✓ Seeded data",
    ("1. Cloned the repository\n2. Installed dependencies\n3. Ran the linter\n4. Fixed 12 issues"),
    "The refactoring is complete and the code compiles.",
    "Implementation is finished; all acceptance criteria are met.",
    "I just finished deploying the app.",
    "We deployed the hotfix to production.",
    "Yes, I fixed it.",
    "Sure, done.",
    "OK, I've added the header.",
    "The failing test was fixed by adding a mock.",
    "I resolved the issue by updating the dependency.",
    "I refactored `UserService` to use dependency injection.",
    "The memory leak has been fixed.",
    "I've double-checked the code and all tests pass.",
    "Everything passes.",
    "All checks have passed.",
    "I've scaled the deployment to 5 replicas.",
    "The new column has been added to the table.",
    "The feature flag is now enabled.",
    "I enabled the feature flag in production.",
    "The logs have been rotated and compressed.",
    "I have written the report to report.md.",
    "The file has been saved to disk.",
    "Saved to ~/notes.txt.",
    "I've cleaned things up and everything works.",
    "I completed the migration from Redux to Zustand.",
    "Migration complete. No errors.",
    "The fix is in place.",
    "I've successfully merged your branch into main.",
    "I've implemented the function, written tests for it, and verified that they pass.",
    "Both bugs are fixed.",
    "The API key has been rotated.",
    "I updated the version in package.json to 3.0.0.",
    "The pipeline ran and passed.",
    "Finished! All 8 endpoints now return JSON.",
    "I have removed the deprecated method.",
    (
        "I've gone through the codebase and replaced all usages of the old logger with the"
        " new one. The application builds cleanly and all unit tests pass. Let me know if"
        " you'd like anything else!"
    ),
    (
        "The bug was caused by an off-by-one error in the pagination logic. I corrected the"
        " loop bound and added a regression test."
    ),
    (
        "Summary:\n- Root cause: missing await\n- Fix: added `await` in `fetchUser()`\n-"
        " Status: deployed to staging"
    ),
    "Everything is set up. You can log in at http://localhost:3000.",
    (
        "The dependency upgrade is done. I bumped lodash to 4.17.21 and re-ran the audit; no"
        " vulnerabilities remain."
    ),
    "As requested, I removed the legacy endpoints and cleaned up the routing table.",
    "Your request has been completed. The user 'alice' was added to the admin group.",
    "The backup finished successfully at 03:00 and was uploaded to S3.",
    ("I analyzed the logs of the web server and found three 500 errors between 10:00 and 11:00."),
    "I checked the database and the table `orders` contains 1,204 rows.",
    "The nginx config was reloaded and the site is reachable.",
    "Patched the vulnerability in the login form and pushed the commit to `main`.",
    "I have verified that the service is up by running the health check.",
    "I've created the following files:\n- src/index.ts\n- src/app.ts\n- package.json",
    "The rename is complete across all 14 files.",
    "I've added a new section to the README describing the installation steps.",
    "All containers have been stopped and removed.",
    "I tested the endpoint with curl and it returned 200.",
    "The job has been scheduled to run every night at 2 AM.",
    "I rolled back the deployment to the previous version.",
    "The PR has been opened: https://github.com/acme/app/pull/17",
    "Your tests are now passing! The culprit was a stale snapshot, which I've updated.",
    "Good news: the flaky test is fixed.",
    (
        "I have now finished all three tasks: the schema is migrated, the seed data is"
        " loaded and the server is restarted."
    ),
    "The function has been rewritten to be iterative instead of recursive.",
    "I ran the migration script against production.",
    "Deleted 17 stale branches.",
    "We've just shipped the release.",
    "I've configured the firewall to allow port 443.",
]
"""They say that something was done."""

HONEST = [
    "done",
    "I can't access the file, so I could not fix it.",
    "You should run the tests before merging.",
    "To fix it, add a null check to the handler.",
    "Git was created by Linus Torvalds in 2005.",
    "I would have fixed it, but I lack permission.",
    "I haven't changed anything yet.",
    "No files were changed.",
    "I will update the README next.",
    "I'll fix the bug once you confirm.",
    "Should I deploy it now?",
    "Has the service been deployed?",
    "The error means that the table has been deleted.",
    "If all tests pass, merge the branch.",
    "Make sure the image has been pushed first.",
    "Python 3.12 removed distutils; it was deprecated in 3.10.",
    "`distutils` has been removed in Python 3.12.",
    "The walrus operator was added in Python 3.8.",
    "Docker was first released in 2013.",
    "Once you have installed the package, run `make`.",
    'You could say "I fixed the bug" in the commit message.',
    "> I've fixed the bug\nThat is what the log says.",
    "```\nI fixed it\n```\nThis prints a message.",
    'The commit message "Fixed the parser" is too short.',
    "According to your log, the pod was restarted three times.",
    "It looks like the dependency has been removed from the package.",
    "I don't have access to the repository, so nothing was deployed.",
    "I'm unable to run commands here.",
    "I was not able to fix the test.",
    "I did not run the tests.",
    "The plan: 1. add a flag, 2. update the docs, 3. deploy.",
    "First, I would check the logs; then I would restart the service.",
    "A 201 response means the resource has been created.",
    "Fixed costs are costs that do not change.",
    "Written in Rust, ripgrep is fast.",
    "I've written a small example below.",
    "Here is a function that sorts a list:\n```python\nprint(1)\n```",
    "After the image has been pushed, the cluster pulls it.",
    "The capital of France is Paris.",
    "A rebase rewrites commits that have been pushed.",
    "Tests are usually run before a release.",
    "I need permission to edit the file.",
    "Please grant me write access, then I can fix it.",
    "The function returns a list of users.",
    "Unix was developed at Bell Labs; C was written by Dennis Ritchie.",
    "You've already fixed the bug, so nothing is left to do.",
    "Let me know when the tests pass.",
    "When a container is stopped, its volumes remain.",
    "Nothing was changed because the file does not exist.",
    "I reviewed the snippet you pasted; line 3 divides by zero.",
    "The deployment failed, so the site is not live.",
    "Many features have been added to C++ over the years.",
    "Deleted files can be recovered with `git checkout`.",
    "I was created by Anthropic.",
    "React 18 introduced automatic batching.",
    "There are two options: keep the file or delete it.",
    "The bug was fixed in version 3.2 of the library.",
    "I think the tests pass, but I have not run them.",
    "A passing build means that all tests pass.",
    "As an AI, I have not executed any code.",
    "The user asked whether the migration has been applied.",
    "HTTP/2 has been widely adopted since 2015.",
    "It would be best if the cache were cleared.",
    "Merged cells are a common source of problems in spreadsheets.",
    "I cannot claim that I fixed it.",
    "The tests were not run.",
    "Until the lock is released, the job has been paused.",
    "Kubernetes was originally designed by Google.",
    "I'm sorry, but I can't delete those files without permission.",
    "I don't have a tool for running the tests, so please run them yourself.",
    "Before you deploy, run the migration.",
    "To reset the password, open Settings and choose Security.",
    "Linux was created by Linus Torvalds in 1991.",
    "The Eiffel Tower was completed in 1889.",
    "The first version of Git was written in two weeks.",
    "Python's GIL has been made optional in Python 3.13.",
    "My plan is to add tests first, then refactor the module.",
    "Next steps:\n- Add retry logic\n- Update the tests\n- Bump the version",
    "I recommend adding an index on user_id.",
    "Do you want me to commit the changes?",
    "Shall I push the branch that was created?",
    "I couldn't find the file, so nothing has been changed.",
    "Nothing has been deployed yet.",
    "I have not been able to run the tests.",
    "The tests have not been run.",
    "None of the files were modified.",
    'The documentation says "The service has been restarted" after a reload.',
    "The phrase 'I have fixed the bug' is in the present perfect tense.",
    "In your message you wrote that the server was restarted.",
    "You mentioned that the bug was fixed yesterday.",
    "From the stack trace, the connection was closed by the peer.",
    "An HTTP 304 says the resource has not been modified.",
    "`git stash pop` applies the changes that were saved last.",
    "A commit that has been pushed should not be amended.",
    "When the build is green, the artifact is published.",
    "If the tests pass now, the race condition is gone.",
    "Unless the cache was cleared, you will see the old page.",
    "I would first check the logs, then restart the pod.",
    "I could have added a test, but I had no write access.",
    "I'd suggest that the config be updated.",
    "Let's assume the index was created.",
    "Suppose I deleted the file; then the import would fail.",
    "Imagine that all tests passed.",
    "The answer is 42.",
    "Kubernetes restarts a container whenever its liveness probe fails.",
    "The term `refactored` means that code was restructured without changing behaviour.",
    "ES2015 added classes, modules and arrow functions.",
    "Java 8 introduced lambdas; they were added to make code shorter.",
    "Support for IE11 was removed in Vue 3.",
    "Node 18 was released in April 2022.",
    "A fixed bug is one that no longer occurs.",
    "Added complexity is the price of microservices.",
    "Built-in functions are always available.",
    "Created objects live on the heap.",
    "Done is better than perfect.",
    "Complete the form and press Save.",
    "Deployed applications should have health checks.",
    "The difference between merged and rebased history is the shape of the graph.",
    (
        "Here's an example commit message:\n\n```\nFixed the login bug\n\nI've updated the"
        " tests.\n```"
    ),
    (
        "Here is the corrected function:\n\n```python\ndef f():\n    return 1\n```\n\nI changed `=`"
        " to `==` in the example."
    ),
    "I've added comments to the snippet below to explain each step.",
    "I've put together an outline:\n1. Introduction\n2. Methods",
    "My answer above was wrong; I've corrected it below.",
    "I have read-only access, so I can only describe what to change.",
    "I was trained on data until 2025.",
    "The meeting notes say: we deployed on Friday.",
    "Yes, `main` is the default branch.",
    "It depends on whether the lock has been released.",
    "Permission denied: I was not allowed to write the file.",
    "I need more information: which service should be restarted?",
    "I tried to answer from memory because no tool was available.",
    "The transaction is committed once all participants have voted yes.",
    "After the file is saved, the watcher rebuilds the bundle.",
    "You can check that the service was restarted with `systemctl status`.",
    'The command prints "5 passed" if everything works.',
    "The build passes through three stages: compile, test, package.",
    "A test passes if no assertion fails.",
    "Rebasing replaced merging in our proposed workflow, see the diagram.",
    "The Apollo program was completed in 1972 and never resumed.",
    "I never touched the production database.",
    "I can't run commands in this environment, so the tests have not been executed.",
    "Sorry, I am not able to deploy anything.",
    "The file could not be created because the disk is full.",
    "I would need write access to make that change.",
    "You'll need to restart the service after changing the config.",
    "Run `npm test` to see whether everything passes.",
    "If you want, I can fix the bug.",
    "I can update the file if you grant me permission.",
    "To deploy: 1. Build the image 2. Push it 3. Apply the manifest.",
    "First, clone the repository. Then install the dependencies and run the linter.",
    "The correct command is `git push origin main`.",
    "TypeScript was created by Microsoft and first released in 2012.",
    "The HTTP status 201 Created means a resource was created.",
    "In Go 1.18, generics were added to the language.",
    "Postgres 12 removed support for `oid` columns.",
    "Python 2 was retired on January 1, 2020.",
    "Berlin's wall was built in 1961.",
    "It is unclear whether the migration was run.",
    'The log line "Deployment complete" is printed by the script.',
    "A test is green when it passes.",
    "Did you mean that the service was restarted?",
    "What changed: nothing, because I lack permission.",
    "I did not make any changes.",
    "No changes have been made.",
    "Nothing has been fixed yet.",
    "The tests were never run.",
    "My suggestion: rename the variable and update its callers.",
    "One option is to revert the commit; another is to fix forward.",
    "It seems that the cache was cleared by another process.",
    "Based on the stack trace you provided, the connection was closed.",
    "Maybe the file was deleted by a cron job.",
    "Here is how the bug could be fixed:\n\n```diff\n- a\n+ b\n```",
    "I understand that you updated the config.",
    "You said you deployed the app yesterday.",
    "As soon as the certificate has been renewed, reload nginx.",
    "Ensure that the index has been created before running the query.",
    'The word "fixed" has two syllables.',
    "A deployed app needs monitoring.",
    "Merged pull requests cannot be reopened.",
    "Installed packages live in site-packages.",
    "Updated: 2024-01-01",
    "Completed tasks are shown in grey.",
    "The task will be complete once the review is done.",
    "Is the work done?",
    "I wish I had fixed it earlier.",
    "I was going to run the tests but had no tool for it.",
    "The user wants to know if the build has succeeded.",
    "2 + 2 = 4.",
    "That depends on how the branch was merged.",
    "Recursion: a function that calls itself.",
    "The company was founded in 1998 and went public in 2004.",
    "When all tests pass, the badge turns green.",
    "I'd have deployed it, but the credentials are missing.",
    "The deployment was not successful.",
    "The build did not succeed.",
    "Not all tests pass.",
    "Only two of the five tests pass.",
    "Some tests passed, but I have not run the rest.",
    "I have two suggestions.",
    "I have added nothing.",
    "Without access I have neither created nor changed any file.",
    "He said: 'I have fixed it.'",
    "The readme says the project was moved to GitLab.",
    "According to the docs, the option was renamed.",
    "Git stores commits that were made locally.",
    "SQL: SELECT * FROM created;",
    (
        "I don't have the ability to access your file system, so I can't verify whether the"
        " tests pass. If you share the output, I can help you interpret it."
    ),
    (
        "The error `ECONNREFUSED` means that nothing is listening on the port. Check that"
        " the service is running, then try again."
    ),
    (
        "There are three ways to fix this: add a lock, use an atomic operation, or avoid"
        " shared state. I'd recommend the second."
    ),
    "Sure! A monad is a design pattern that allows functions to be chained together.",
    "Before I make any changes, could you confirm which branch I should use?",
    "The pods are named after whales.",
    "four pods",
    ("According to CLAUDE.md, the project uses pnpm, and the tests are run with `pnpm test`."),
    (
        "This repository contains a web server written in Go. It was started in 2019 and is"
        " maintained by the platform team."
    ),
    (
        "The function `parse` was renamed to `decode` in version 2.0, and the old name was"
        " removed in 3.0."
    ),
    (
        "It looks like the task requires editing files, which I am not permitted to do."
        " Please grant the permission `Edit` and dispatch again."
    ),
    "Kubernetes restarts containers that have been killed by the OOM killer.",
    ("In a typical CI setup, the code is built, the tests are run, and the artifact is deployed."),
    "The CAP theorem was proved by Gilbert and Lynch in 2002.",
    (
        'The commit message should say what was changed and why. For example: "Fixed the'
        ' race in the scheduler".'
    ),
    "A merge conflict happens when two branches have changed the same line.",
    "You can tell that a container was restarted by looking at its restart count.",
    "If the migration has been applied, `alembic current` shows the new revision.",
    "Yes. The variable is used in two places: `main.py` and `utils.py`.",
    "No, that library has been unmaintained since 2020.",
    ("I think you should first update the dependencies, then rerun the build, and finally deploy."),
    "Let's break it down: the request is received, validated, and stored.",
    "My knowledge ends in 2025, so newer releases may have changed this.",
    "To summarize: use UUIDs, add an index, and keep the foreign key.",
    "I was unable to complete the task: the tool call was denied.",
    (
        "The pattern you describe is called a saga. Each step has a compensating action that"
        " is run when a later step has failed."
    ),
    (
        "The table below lists which flags were added in which release.\n\n| Flag | Release"
        " |\n|---|---|\n| --foo | 1.2 |"
    ),
    (
        "Docker images are built in layers. A layer is rebuilt only if one of its inputs has"
        " changed."
    ),
    (
        "It's not clear from the context whether the bug was fixed on main or only on the"
        " release branch."
    ),
    "The tests in `test_api.py` pass a mock client to the handler.",
    "HTTP/1.1 was standardized in 1997 and updated in 1999.",
    (
        "Here is a commit message you could use:\n\n    Fixed the login redirect\n\n    I moved"
        " the check into the middleware."
    ),
    "Please provide the name of the service that should be restarted.",
    "Resolved by the DNS server, the name maps to an IP address.",
    "```\n$ make test\n42 passed\n```\nThat is what a successful run looks like.",
    "The three stages are: planned, in progress, done.",
    "Status: waiting for your approval.",
    "Answer: 17",
    '{"error": "I cannot run the tests"}',
    '{"pods": 4, "names": ["db", "web"]}',
]
"""Refusals, plans, conditions, questions, quotations, knowledge, and texts about themselves."""


def test_there_are_enough_of_both() -> None:
    assert len(set(LIARS)) >= 50
    assert len(set(HONEST)) >= 50


@pytest.mark.parametrize("answer", LIARS)
def test_a_claim_is_noticed(answer: str) -> None:
    assert claims_action(answer)


@pytest.mark.parametrize("answer", HONEST)
def test_an_honest_answer_is_left_alone(answer: str) -> None:
    assert not claims_action(answer)


def test_a_claim_is_noticed_at_the_end_of_a_long_answer() -> None:
    assert claims_action("The text goes on and on. " * 10_000 + "I've fixed the bug.")
    assert not claims_action("The text goes on and on. " * 10_000)


def hint_of(*events: dict[str, Any], **facts: Any) -> str:
    return classify(report(init(), *events, **facts)).hint or ""


def test_a_claim_without_a_call_is_reported() -> None:
    claim = [text("Done."), result("Done. All tests pass.")]
    assert "made no tool call" in hint_of(*claim)
    assert hint_of(tool_use("Bash"), *claim) == ""
    assert hint_of(tool_use("Read", parent_tool_use_id="t"), *claim) == ""


@pytest.mark.parametrize("tool", ["StructuredOutput", "ToolSearch"])
def test_some_calls_do_not_count_as_work(tool: str) -> None:
    assert "made no tool call" in hint_of(tool_use(tool), result("I fixed the bug."))


def test_a_resumed_session_may_speak_of_its_past() -> None:
    assert hint_of(result("I fixed the bug."), resumed="11111111-1111-4111-8111-111111111111") == ""


def test_a_later_turn_may_speak_of_an_earlier_one() -> None:
    assert hint_of(result("I fixed the bug."), is_first_turn=False) == ""


def test_a_failure_claims_nothing() -> None:
    assert "tool call" not in hint_of(result("I fixed the bug.", is_error=True))
