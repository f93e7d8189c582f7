/* JSON lines of whole numbers to rows: the plain case, which is nearly every line of an episode.
 *
 * Whatever is not plain (a fraction, a null, a text, an escape, a key that lacks or comes twice, a
 * blank line, an integer outside int64) ends the work with -1, and the decoder in parse.py judges it.
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

/* Read the key whose opening quote lies before p into `member`; NULL if it is not plain. */
static const char *read_key(const char *p, const char *end, const char *const *keys,
                            const int64_t *key_sizes, int n_keys, struct member *member)
{
    member->key = p;
    while (p < end && *p != '"') {
        if ((unsigned char)*p < ' ' || (unsigned char)*p >= 0x7f || *p == '\\')
            return NULL;
        p++;
    }
    member->size = p - member->key;
    member->column = -1;
    for (int i = 0; i < n_keys; i++)
        if (key_sizes[i] == member->size && memcmp(keys[i], member->key, member->size) == 0)
            member->column = i;
    return p < end ? p + 1 : NULL;
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

/* Parse `size` bytes of lines, each an object of integers that holds every key once.
 *
 * columns: int64 (n_keys, most_rows), filled in the order of the keys.
 * Returns how many rows there are; -1 if a line is not plain, is longer than `longest_line`, or is
 * one more than `most_rows`.
 */
int64_t cis490_whole_rows(const char *text, int64_t size, const char *const *keys,
                          const int64_t *key_sizes, int n_keys, int64_t longest_line,
                          int64_t most_rows, int64_t *columns)
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
            int64_t value;
            if (!(p = read_integer(after_spaces(p, end), end, &value)))
                return -1;
            if (member->column >= 0) {
                uint64_t bit = 1ULL << member->column;
                if (seen & bit)
                    return -1;
                seen |= bit;
                columns[member->column * most_rows + n_rows] = value;
            }
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
