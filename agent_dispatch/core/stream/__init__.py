"""The stream-json protocol of claude: lines to stdin, events from stdout, the transcript."""
