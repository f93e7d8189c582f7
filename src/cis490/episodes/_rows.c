/* JSON lines of whole numbers and texts to rows: the plain case, nearly every line of an episode.
 *
 * Whatever is not plain (a fraction, a null, what is not ASCII, an escape by number or in a key, a text
 * for a number, a key that lacks or comes twice, a blank line, an integer outside int64) ends the work
 * with -1, and the decoder in parse.py judges it.
 */

#include <stdint.h>
#include <string.h>

#define MOST_MEMBERS 64 /* of a line; as many bits has `seen` */

struct member {
    const char *key; /* in the line where it was first seen */
    int64_t size;
    int column; /* -1: a key that nobody asked for */
};

static const char *after_spaces(const char *p, const char *end)
{
    while (p < end && *p == ' ')
        p++;
    return p;
}

/* The closing quote of a text whose opening one lies before p, and how many escapes it holds; NULL
 * if it is not plain. */
static const char *read_text(const char *p, const char *end, int64_t *n_escapes)
{
    *n_escapes = 0;
    for (; p < end && *p != '"'; p++) {
        if ((unsigned char)*p < ' ' || (unsigned char)*p >= 0x7f)
            return NULL;
        if (*p == '\\') {
            if (++p == end || !*p || !strchr("\"\\/bfnrt", *p))
                return NULL;
            ++*n_escapes;
        }
    }
    return p < end ? p : NULL;
}

/* Copy the text from p to end without its escapes; how many bytes it has. */
static int64_t copy_text(const char *p, const char *end, int64_t n_escapes, char *to)
{
    static const char spelt[] = "bfnrt", meant[] = "\b\f\n\r\t";
    const char *begin = to, *found;
    if (!n_escapes) {
        memcpy(to, p, end - p);
        return end - p;
    }
    while (p < end) {
        if (*p == '\\' && (found = strchr(spelt, *++p)))
            *to++ = meant[found - spelt], p++;
        else
            *to++ = *p++;
    }
    return to - begin;
}

/* Read the key whose opening quote lies before p into `member`; NULL if it is not plain. */
static const char *read_key(const char *p, const char *end, const char *const *keys,
                            const int64_t *key_sizes, int n_keys, struct member *member)
{
    member->key = p;
    int64_t n_escapes;
    if (!(p = read_text(p, end, &n_escapes)) || n_escapes)
        return NULL;
    member->size = p - member->key;
    member->column = -1;
    for (int i = 0; i < n_keys; i++)
        if (key_sizes[i] == member->size && memcmp(keys[i], member->key, member->size) == 0)
            member->column = i;
    return p + 1;
}

/* Read a JSON integer within int64; NULL if it is anything else. */
static const char *read_integer(const char *p, const char *end, int64_t *value)
{
    int negative = p < end && *p == '-';
    const char *first = p += negative;
    uint64_t n = 0;
    while (p < end && *p >= '0' && *p <= '9') {
        if (p - first == 19)
            return NULL; /* 19 digits fit into 64 bits */
        n = 10 * n + (uint64_t)(*p++ - '0');
    }
    if (p == first || (*first == '0' && p - first > 1) || n > (uint64_t)INT64_MAX + negative)
        return NULL;
    *value = (int64_t)(negative ? 0 - n : n);
    return p;
}

/* sha256 of the source that this was compiled from. */
const char *cis490_source(void)
{
    return CIS490_SOURCE;
}

/* Parse `size` bytes of lines, each an object of integers and texts that holds every key once.
 *
 * texts: of the keys, a bit each: those that are texts; the others are integers.
 * columns: int64 (n_keys, most_rows), filled in the order of the keys with the integers.
 * joined: char (n_texts, size), filled in the same order with the texts, each ended by a zero, which
 *   no plain text holds; sizes: of each how many bytes these are.
 * Returns how many rows there are; -1 if a line is not plain, is longer than `longest_line`, or is
 * one more than `most_rows`.
 */
int64_t cis490_plain_rows(const char *text, int64_t size, const char *const *keys,
                          const int64_t *key_sizes, int n_keys, uint64_t texts,
                          int64_t longest_line, int64_t most_rows, int64_t *columns,
                          char *joined, int64_t *sizes)
{
    const char *p = text, *end = text + size;
    struct member known[MOST_MEMBERS]; /* of the line before: keys come in one order */
    int n_known = 0;
    int64_t n_rows = 0;
    if (n_keys > MOST_MEMBERS)
        return -1;
    const uint64_t all = n_keys == MOST_MEMBERS ? ~0ULL : (1ULL << n_keys) - 1;

    for (; p < end; n_rows++) {
        const char *line = p;
        uint64_t seen = 0;
        if (n_rows == most_rows || *p++ != '{')
            return -1;
        for (int i = 0;; i++) {
            p = after_spaces(p, end);
            if (i == MOST_MEMBERS || p == end || *p++ != '"')
                return -1;
            struct member *member = &known[i];
            if (i < n_known && end - p > member->size && p[member->size] == '"' &&
                memcmp(p, member->key, member->size) == 0) {
                p += member->size + 1;
            } else {
                n_known = i + 1;
                if (!(p = read_key(p, end, keys, key_sizes, n_keys, member)))
                    return -1;
            }
            p = after_spaces(p, end);
            if (p == end || *p++ != ':')
                return -1;
            p = after_spaces(p, end);
            int64_t value = 0, n_escapes = 0;
            int is_text = p < end && *p == '"';
            const char *begin = p + 1;
            p = is_text ? read_text(begin, end, &n_escapes) : read_integer(p, end, &value);
            if (!p)
                return -1;
            if (member->column >= 0) {
                uint64_t bit = 1ULL << member->column;
                if (seen & bit || is_text != ((texts & bit) != 0))
                    return -1;
                seen |= bit;
                if (is_text) {
                    int which = __builtin_popcountll(texts & (bit - 1));
                    char *to = joined + which * size + sizes[which];
                    int64_t n_bytes = copy_text(begin, p, n_escapes, to);
                    to[n_bytes] = '\0'; /* there is room: of the line two quotes are left */
                    sizes[which] += n_bytes + 1;
                } else {
                    columns[member->column * most_rows + n_rows] = value;
                }
            }
            p += is_text;
            p = after_spaces(p, end);
            if (p == end)
                return -1;
            if (*p == '}')
                break;
            if (*p++ != ',')
                return -1;
        }
        p++;
        if (seen != all || p - line > longest_line || (p < end && *p++ != '\n'))
            return -1;
    }
    return n_rows;
}
