/* The cheapest child that can be dispatched to: takes one prompt, answers at once, leaves.
 *
 * With --input-format it reads its prompt as one line of stdin; without, it leaves stdin alone. A
 * prompt with "task N" in it is answered by "done N", so that an answer tells whose it is. Settings
 * come as environment variables:
 *
 *   STANDIN_LINES    so many messages before the answer
 *   STANDIN_SECONDS  it takes so long, the messages spread over it
 *   STANDIN_LISTENS  it reads its stdin for so many seconds, as the real one does, whatever is in
 *                    it; with --input-format from the second line on
 *   STANDIN_BYTES    the answer has so many bytes
 *   STANDIN_GATE     a FIFO: the answer comes when somebody has opened and closed its other end
 *   STANDIN_STAMPS   a file that gets a line when the child starts, and one when it has answered:
 *                    which, the seconds of CLOCK_MONOTONIC, and with the first the child's seat
 *   STANDIN_SEATS    a file in which each child locks the lowest byte that is free for as long as
 *                    it lives; the kernel frees it, so the highest seat ever taken, counted from
 *                    1, is how many children there were at once
 */
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define ID "00000000-0000-4000-8000-000000000000"
#define DOOR 1000000 /* Behind all seats: one child at a time looks for one. */

static const char MESSAGE[] =
    "{\"type\":\"assistant\",\"session_id\":\"" ID "\",\"message\":{\"id\":\"msg_1\",\"type\":\"message\","
    "\"role\":\"assistant\",\"model\":\"standin\",\"content\":[{\"type\":\"text\",\"text\":"
    "\"Still looking through the files of this project, one after the other.\"}],"
    "\"usage\":{\"input_tokens\":10,\"output_tokens\":5}}}\n";

static char number[32];

static void note_number(const char *prompt) {
    const char *named = strstr(prompt, "task ");
    size_t size = named ? strspn(named + 5, "-0123456789") : 0;
    if (size > 0 && size < sizeof number) memcpy(number, named + 5, size);
}

static void read_line(void) {
    char chunk[65536];
    ssize_t size;
    while ((size = read(STDIN_FILENO, chunk, sizeof chunk - 1)) > 0) {
        chunk[size] = 0;
        note_number(chunk);
        if (memchr(chunk, '\n', (size_t)size)) return;
    }
}

static int lock(int fd, int command, short type, off_t start) {
    struct flock range = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = 1};
    return fcntl(fd, command, &range);
}

static int take_seat(void) {
    const char *path = getenv("STANDIN_SEATS");
    int fd, seat = 0;
    if (!path || (fd = open(path, O_RDWR | O_CREAT, 0600)) < 0) return -1;
    /* Within the door seats are only given back: the one found is never too high. */
    lock(fd, F_SETLKW, F_WRLCK, DOOR);
    while (lock(fd, F_SETLK, F_WRLCK, seat) < 0) seat++;
    lock(fd, F_SETLK, F_UNLCK, DOOR);
    return seat;
}

static void stamp(const char *what, int seat) {
    const char *path = getenv("STANDIN_STAMPS");
    char line[64];
    struct timespec now;
    int fd, size;
    if (!path || (fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600)) < 0) return;
    clock_gettime(CLOCK_MONOTONIC, &now);
    size = snprintf(line, sizeof line, "%s %lld.%09ld %d\n", what, (long long)now.tv_sec,
                    now.tv_nsec, seat);
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

static void pause_for(double seconds) {
    struct timespec left = {.tv_sec = (time_t)seconds};
    left.tv_nsec = (long)((seconds - (double)left.tv_sec) * 1e9);
    while (nanosleep(&left, &left) != 0) continue;
}

static void work(int streams) {
    const char *asked = getenv("STANDIN_LINES"), *takes = getenv("STANDIN_SECONDS");
    int lines = streams && asked ? atoi(asked) : 0;
    double pause_s = takes ? atof(takes) / (lines + 1) : 0;
    for (int line = 0; line < lines; line++) {
        if (pause_s > 0) pause_for(pause_s);
        fputs(MESSAGE, stdout);
        if (pause_s > 0) fflush(stdout);
    }
    if (pause_s > 0) pause_for(pause_s);
}

static double now_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void listen_to_stdin(void) {
    static char chunk[65536];
    const char *asked = getenv("STANDIN_LISTENS");
    double left_s, until_s = now_s() + (asked ? atof(asked) : 0);
    struct pollfd end = {.fd = STDIN_FILENO, .events = POLLIN};
    /* A negative descriptor is only waited with: nothing more will come. */
    while ((left_s = until_s - now_s()) > 0)
        if (poll(&end, 1, (int)(left_s * 1000) + 1) > 0 && read(end.fd, chunk, sizeof chunk) <= 0)
            end.fd = -1;
}

static void put_answer(void) {
    static char dots[65536];
    const char *asked = getenv("STANDIN_BYTES");
    long left = asked ? atol(asked) : 0;
    left -= printf(number[0] ? "done %s" : "done", number);
    memset(dots, '.', sizeof dots);
    for (; left > 0; left -= (long)sizeof dots)
        fwrite(dots, 1, left < (long)sizeof dots ? (size_t)left : sizeof dots, stdout);
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
    stamp("start", take_seat());
    if (reads) read_line();
    for (int i = 1; !reads && i < argc; i++) note_number(argv[i]);
    if (streams)
        fputs("{\"type\":\"system\",\"subtype\":\"init\",\"session_id\":\"" ID "\",\"model\":\"standin\","
              "\"tools\":[],\"mcp_servers\":[]}\n", stdout);
    work(streams);
    listen_to_stdin();
    wait_at_gate();
    fputs("{\"type\":\"result\",\"subtype\":\"success\",\"is_error\":false,\"result\":\"", stdout);
    put_answer();
    fputs("\",\"session_id\":\"" ID "\",\"num_turns\":1,\"duration_ms\":1,\"total_cost_usd\":0.001,"
          "\"terminal_reason\":\"completed\",\"permission_denials\":[]}\n", stdout);
    if (fflush(stdout) != 0) return 1;
    stamp("end", -1);
    return 0;
}
