/* One pass over the bytes, which become strings in place: a line is cut off, then its name, then its
 * value; a table says which names are wanted and where they go. */
#include "launch/http/http_head.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

enum {
    BAD_REQUEST = 400,
    EXPECTATION_FAILED = 417,
    FIELDS_TOO_LARGE = 431,
    NOT_IMPLEMENTED = 501,
    VERSION_NOT_SUPPORTED = 505,
    MOST_DIGITS = 18,
};

/* What the fields say before they are weighed against each other. */
typedef struct fields {
    tsr_http_head *head;
    const char *length;
    const char *transfer;
    const char *connection;
    const char *expect;
    tsr_refusal *refusal;
} fields;

static tsr_status refuse(tsr_refusal *refusal, int status, const char *message)
{
    const tsr_status st = tsr_refuse(refusal, "invalid_http", NULL, "%s", message);
    refusal->status = status;
    return st;
}

/* True when the list, divided by commas, holds the word; letters of either case. */
static bool list_has(const char *list, const char *word)
{
    const size_t bytes = strlen(word);

    while (*list != '\0') {
        list += strspn(list, " \t,");
        const size_t here = strcspn(list, ",");
        size_t used = here;
        while (used > 0 && (list[used - 1] == ' ' || list[used - 1] == '\t'))
            used--;
        if (used == bytes && strncasecmp(list, word, bytes) == 0)
            return true;
        list += here;
    }
    return false;
}

/* Characters of methods and names. */
static bool is_token(const char *text)
{
    if (*text == '\0')
        return false;
    for (; *text != '\0'; text++) {
        if (!isalnum((unsigned char)*text) && strchr("!#$%&'*+-.^_`|~", *text) == NULL)
            return false;
    }
    return true;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    const int lower = tolower((unsigned char)c);
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

/* Decodes %xx in place. False: broken, or a zero byte. */
static bool decode_path(char *path)
{
    char *to = path;

    for (const char *from = path; *from != '\0'; from++) {
        if (*from != '%') {
            *to++ = *from;
            continue;
        }
        const int high = hex_digit(from[1]);
        const int low = high >= 0 ? hex_digit(from[2]) : -1;
        if (low < 0 || high * 16 + low == 0)
            return false;
        *to++ = (char)(high * 16 + low);
        from += 2;
    }
    *to = '\0';
    return true;
}

static tsr_http_method method_of(const char *name)
{
    static const struct {
        const char *name;
        tsr_http_method method;
    } methods[] = {{"GET", TSR_HTTP_GET},
                   {"HEAD", TSR_HTTP_HEAD},
                   {"POST", TSR_HTTP_POST},
                   {"OPTIONS", TSR_HTTP_OPTIONS}};

    for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
        if (strcmp(name, methods[i].name) == 0)
            return methods[i].method;
    }
    return TSR_HTTP_OTHER;
}

/* "/path?query", "http://host/path?query", or "*". */
static tsr_status parse_target(char *target, tsr_http_head *head, tsr_refusal *refusal)
{
    static char root[] = "/";

    if (strncasecmp(target, "http://", 7) == 0 || strncasecmp(target, "https://", 8) == 0) {
        target = strchr(strchr(target, ':') + 3, '/');
        if (target == NULL)
            target = root;
    }
    if (strcmp(target, "*") == 0 && head->method == TSR_HTTP_OPTIONS)
        target = root;
    if (target[0] != '/')
        return refuse(refusal, BAD_REQUEST, "the target of the request is no path");

    char *query = strchr(target, '?');
    head->query = "";
    if (query != NULL) {
        *query = '\0';
        head->query = query + 1;
    }
    if (target != root && !decode_path(target))
        return refuse(refusal, BAD_REQUEST, "the path has a % that is no character");
    head->path = target;
    return TSR_OK;
}

static tsr_status parse_request_line(char *line, tsr_http_head *head, tsr_refusal *refusal)
{
    char *target = strchr(line, ' ');
    char *version = target != NULL ? strchr(target + 1, ' ') : NULL;

    if (version == NULL)
        return refuse(refusal, BAD_REQUEST, "the first line is no request line");
    *target++ = '\0';
    *version++ = '\0';
    for (const char *c = target; *c != '\0'; c++) {
        if (*c < '!' || *c > '~')
            return refuse(refusal, BAD_REQUEST, "the target of the request is not plain ASCII");
    }
    if (!is_token(line))
        return refuse(refusal, BAD_REQUEST, "the method is no word");
    if (strcmp(version, "HTTP/1.1") != 0 && strcmp(version, "HTTP/1.0") != 0)
        return strncmp(version, "HTTP/", 5) == 0
                   ? refuse(refusal, VERSION_NOT_SUPPORTED, "HTTP/1.1 and HTTP/1.0 are served")
                   : refuse(refusal, BAD_REQUEST, "the first line is no request line");
    head->old = strcmp(version, "HTTP/1.0") == 0;
    head->method_name = line;
    head->method = method_of(line);
    return parse_target(target, head, refusal);
}

/* The place for a field that is wanted; *ret_once: two of them contradict each other. */
static const char **place_of(fields *f, const char *name, bool *ret_once)
{
    const struct {
        const char *name;
        const char **place;
        bool once;
    } places[] = {
        {"host", &f->head->host, true},
        {"content-length", &f->length, true},
        {"transfer-encoding", &f->transfer, true},
        {"connection", &f->connection, false},
        {"expect", &f->expect, true},
        {"content-type", &f->head->content_type, true},
        {"authorization", &f->head->authorization, true},
        {"x-api-key", &f->head->api_key, true},
        {"x-request-id", &f->head->request_id, false},
        {"origin", &f->head->origin, false},
    };

    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        if (strcasecmp(name, places[i].name) == 0) {
            *ret_once = places[i].once;
            return places[i].place;
        }
    }
    return NULL;
}

static tsr_status parse_field(char *line, fields *f)
{
    char *value = strchr(line, ':');
    bool once = false;

    if (value == NULL)
        return refuse(f->refusal, BAD_REQUEST, "a header field has no colon");
    *value++ = '\0';
    if (!is_token(line))
        return refuse(f->refusal, BAD_REQUEST, "the name of a header field is no word");
    value += strspn(value, " \t");
    size_t bytes = strlen(value);
    while (bytes > 0 && (value[bytes - 1] == ' ' || value[bytes - 1] == '\t'))
        value[--bytes] = '\0';
    for (const char *c = value; *c != '\0'; c++) {
        if (((unsigned char)*c < ' ' && *c != '\t') || *c == '\x7f')
            return refuse(f->refusal, BAD_REQUEST, "a header field holds a control character");
    }

    const char **place = place_of(f, line, &once);
    if (place != NULL && *place != NULL && once)
        return refuse(f->refusal, BAD_REQUEST, "a header field that may stand once stands twice");
    if (place != NULL && *place == NULL)
        *place = value;
    return TSR_OK;
}

static bool parse_length(const char *text, uint64_t *ret_length)
{
    const size_t digits = strspn(text, "0123456789");
    uint64_t length = 0;

    if (digits == 0 || digits > MOST_DIGITS || text[digits] != '\0')
        return false;
    for (size_t i = 0; i < digits; i++)
        length = length * 10 + (uint64_t)(text[i] - '0');
    *ret_length = length;
    return true;
}

static tsr_status weigh_fields(fields *f)
{
    tsr_http_head *head = f->head;

    if (head->host == NULL && !head->old)
        return refuse(f->refusal, BAD_REQUEST, "the field Host is missing");
    if (f->transfer != NULL && f->length != NULL)
        return refuse(f->refusal, BAD_REQUEST,
                      "Content-Length and Transfer-Encoding contradict each other");
    if (f->transfer != NULL && (head->old || strcasecmp(f->transfer, "chunked") != 0))
        return refuse(f->refusal, NOT_IMPLEMENTED, "of transfer encodings only chunked is served");
    if (f->length != NULL && !parse_length(f->length, &head->length))
        return refuse(f->refusal, BAD_REQUEST, "Content-Length is no number of bytes");
    if (f->expect != NULL && strcasecmp(f->expect, "100-continue") != 0)
        return refuse(f->refusal, EXPECTATION_FAILED, "of expectations only 100-continue is met");
    head->chunked = f->transfer != NULL;
    head->expects_continue = f->expect != NULL && !head->old;
    head->keep_alive = !head->old;
    if (f->connection != NULL && list_has(f->connection, "close"))
        head->keep_alive = false;
    else if (f->connection != NULL && list_has(f->connection, "keep-alive"))
        head->keep_alive = true;
    return TSR_OK;
}

/* Cuts the line at `at` off, which ends with CR LF; NULL where it does not. */
static char *cut_line(char *at, char *end)
{
    char *line_end = memchr(at, '\n', (size_t)(end - at));

    if (line_end == NULL || line_end == at || line_end[-1] != '\r')
        return NULL;
    line_end[-1] = '\0';
    return line_end + 1;
}

tsr_status tsr_http_head_parse(char *bytes, size_t count, tsr_http_head *ret_head,
                               tsr_refusal *ret_refusal)
{
    tsr_http_head head = {.query = ""};
    fields f = {.head = &head, .refusal = ret_refusal};
    char *const end = bytes + count;
    int32_t seen = 0;

    if (memchr(bytes, '\0', count) != NULL)
        return refuse(ret_refusal, BAD_REQUEST, "the head holds a zero byte");
    char *at = bytes;
    char *next = cut_line(at, end);
    tsr_status st = next != NULL ? parse_request_line(at, &head, ret_refusal)
                                 : refuse(ret_refusal, BAD_REQUEST, "a line does not end in CR LF");
    while (st == TSR_OK) {
        at = next;
        next = cut_line(at, end);
        if (next == NULL)
            return refuse(ret_refusal, BAD_REQUEST, "a line does not end in CR LF");
        if (*at == '\0')
            break;
        if (++seen > TSR_HTTP_MAX_FIELDS)
            return refuse(ret_refusal, FIELDS_TOO_LARGE, "there are too many header fields");
        st = parse_field(at, &f);
    }
    if (st == TSR_OK)
        st = weigh_fields(&f);
    if (st == TSR_OK)
        *ret_head = head;
    return st;
}
