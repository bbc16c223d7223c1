/* The least of a web server: one connection at a time, one answer for all. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void stop(int signal) {
    (void)signal;
    static const char text[] = "server: stopping\n";
    if (write(STDOUT_FILENO, text, sizeof text - 1) < 0)
        _exit(1);
    _exit(0);
}

static void answer(int client) {
    char request[4096], text[256], head[256];
    if (read(client, request, sizeof request) <= 0)
        return;
    int length = snprintf(text, sizeof text, "static binary, pid %d, uid %d\n", (int)getpid(), (int)getuid());
    int start = snprintf(head, sizeof head,
                         "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n", length);
    if (write(client, head, (size_t)start) == start && write(client, text, (size_t)length) == length)
        printf("server: answered\n");
}

int main(int argc, char **argv) {
    int port = argc > 1 ? atoi(argv[1]) : 8081;
    /* As the first process of a container it must ask for the signal that stops it. */
    signal(SIGTERM, stop);
    signal(SIGINT, stop);
    signal(SIGPIPE, SIG_IGN);
    setvbuf(stdout, NULL, _IOLBF, 0);

    int listener = socket(AF_INET, SOCK_STREAM, 0);
    int on = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 16) < 0) {
        perror("server");
        return 1;
    }
    printf("server: listening on port %d\n", port);
    for (;;) {
        int client = accept(listener, NULL, NULL);
        if (client < 0)
            continue;
        answer(client);
        close(client);
    }
}
