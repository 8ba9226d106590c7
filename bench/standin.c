/* The cheapest child that can be dispatched to: takes one prompt, answers at once, leaves.
 *
 * With --input-format it reads its prompt as one line of stdin; without, it leaves stdin alone.
 * STANDIN_LINES asks for that many messages before the answer.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ID "00000000-0000-4000-8000-000000000000"

static const char MESSAGE[] =
    "{\"type\":\"assistant\",\"session_id\":\"" ID "\",\"message\":{\"id\":\"msg_1\",\"type\":\"message\","
    "\"role\":\"assistant\",\"model\":\"standin\",\"content\":[{\"type\":\"text\",\"text\":"
    "\"Still looking through the files of this project, one after the other.\"}],"
    "\"usage\":{\"input_tokens\":10,\"output_tokens\":5}}}\n";

static void read_line(void) {
    char chunk[65536];
    ssize_t size;
    while ((size = read(STDIN_FILENO, chunk, sizeof chunk)) > 0)
        if (memchr(chunk, '\n', (size_t)size)) return;
}

int main(int argc, char **argv) {
    int streams = 0, reads = 0;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--version") == 0) return puts("2.1.330 (Claude Code)") < 0;
        if (strncmp(argv[i], "--input-format", 14) == 0) reads = 1;
        if (strcmp(argv[i], "--output-format=stream-json") == 0) streams = 1;
        if (strcmp(argv[i], "--output-format") == 0 && i + 1 < argc)
            streams = strcmp(argv[i + 1], "stream-json") == 0;
    }
    if (reads) read_line();
    const char *asked = getenv("STANDIN_LINES");
    if (streams) {
        fputs("{\"type\":\"system\",\"subtype\":\"init\",\"session_id\":\"" ID "\",\"model\":\"standin\","
              "\"tools\":[],\"mcp_servers\":[]}\n", stdout);
        for (int left = asked ? atoi(asked) : 0; left > 0; left--) fputs(MESSAGE, stdout);
    }
    fputs("{\"type\":\"result\",\"subtype\":\"success\",\"is_error\":false,\"result\":\"done\","
          "\"session_id\":\"" ID "\",\"num_turns\":1,\"duration_ms\":1,\"total_cost_usd\":0.001,"
          "\"terminal_reason\":\"completed\",\"permission_denials\":[]}\n", stdout);
    return fflush(stdout) != 0;
}
