/* The cheapest child that can be dispatched to: takes one prompt, answers at once, leaves.
 *
 * With --input-format it reads its prompt as one line of stdin; without, it leaves stdin alone.
 * STANDIN_LINES asks for that many messages before the answer. STANDIN_GATE names a FIFO: the
 * answer comes when somebody has opened and closed its other end. STANDIN_STAMPS names a file
 * that gets a line when the child starts, and one when it has answered: which, and the seconds of
 * CLOCK_MONOTONIC.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
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

static void stamp(const char *what) {
    const char *path = getenv("STANDIN_STAMPS");
    char line[64];
    struct timespec now;
    int fd, size;
    if (!path || (fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600)) < 0) return;
    clock_gettime(CLOCK_MONOTONIC, &now);
    size = snprintf(line, sizeof line, "%s %lld.%09ld\n", what, (long long)now.tv_sec, now.tv_nsec);
    if (write(fd, line, (size_t)size) != size) exit(1);
    close(fd);
}

static void wait_at_gate(void) {
    const char *path = getenv("STANDIN_GATE");
    char byte;
    int fd;
    if (!path || fflush(stdout) != 0 || (fd = open(path, O_RDONLY)) < 0) return;
    while (read(fd, &byte, 1) > 0) continue;
    close(fd);
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
    stamp("start");
    if (reads) read_line();
    const char *asked = getenv("STANDIN_LINES");
    if (streams) {
        fputs("{\"type\":\"system\",\"subtype\":\"init\",\"session_id\":\"" ID "\",\"model\":\"standin\","
              "\"tools\":[],\"mcp_servers\":[]}\n", stdout);
        for (int left = asked ? atoi(asked) : 0; left > 0; left--) fputs(MESSAGE, stdout);
    }
    wait_at_gate();
    fputs("{\"type\":\"result\",\"subtype\":\"success\",\"is_error\":false,\"result\":\"done\","
          "\"session_id\":\"" ID "\",\"num_turns\":1,\"duration_ms\":1,\"total_cost_usd\":0.001,"
          "\"terminal_reason\":\"completed\",\"permission_denials\":[]}\n", stdout);
    if (fflush(stdout) != 0) return 1;
    stamp("end");
    return 0;
}
