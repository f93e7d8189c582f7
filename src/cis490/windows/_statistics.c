/* Summary statistics of overlapping windows, straight from an episode's grid (features.py says what
 * they mean, and does the same without a compiler).
 */

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#define LANES 8 /* sums that run side by side, so that a processor can add several numbers at once */
#define N_STATISTICS 6

const char *cis490_source(void)
{
    return CIS490_SOURCE;
}

struct window {
    int64_t count; /* of measured steps */
    double mean, low, high;
    double square; /* sum of squared deviations */
    double cross;  /* sum of deviation times time */
    double times;  /* sum of squared times about the mean of those that were measured */
};

static double total(const double *lanes)
{
    return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) +
           ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

/* All steps were measured: the usual case. */
static struct window of_whole(const float *x, const double *time, int64_t n)
{
    double sum[LANES] = {0}, square[LANES] = {0}, cross[LANES] = {0};
    float low[LANES], high[LANES];
    struct window w = {.count = n, .low = x[0], .high = x[0], .times = time[n]};
    int64_t t, whole = n - n % LANES;

    for (int k = 0; k < LANES; k++)
        low[k] = high[k] = x[0];
    for (t = 0; t < whole; t += LANES)
        for (int k = 0; k < LANES; k++) {
            float v = x[t + k];
            sum[k] += v;
            low[k] = v < low[k] ? v : low[k];
            high[k] = v > high[k] ? v : high[k];
        }
    for (; t < n; t++) {
        sum[0] += x[t];
        low[0] = x[t] < low[0] ? x[t] : low[0];
        high[0] = x[t] > high[0] ? x[t] : high[0];
    }
    for (int k = 0; k < LANES; k++) {
        w.low = low[k] < w.low ? low[k] : w.low;
        w.high = high[k] > w.high ? high[k] : w.high;
    }
    w.mean = total(sum) / (double)n;
    for (t = 0; t < whole; t += LANES)
        for (int k = 0; k < LANES; k++) {
            double d = x[t + k] - w.mean;
            square[k] += d * d;
            cross[k] += d * time[t + k];
        }
    for (; t < n; t++) {
        double d = x[t] - w.mean;
        square[0] += d * d;
        cross[0] += d * time[t];
    }
    w.square = total(square);
    w.cross = total(cross);
    return w;
}

static struct window of_part(const float *x, const uint8_t *measured, const double *time, int64_t n)
{
    struct window w = {.low = INFINITY, .high = -INFINITY};
    double sum = 0, sum_time = 0;

    for (int64_t t = 0; t < n; t++)
        if (measured[t]) {
            w.count++;
            sum += x[t];
            sum_time += time[t];
            w.low = x[t] < w.low ? x[t] : w.low;
            w.high = x[t] > w.high ? x[t] : w.high;
        }
    w.mean = sum / (double)w.count;
    double mean_time = sum_time / (double)w.count;
    for (int64_t t = 0; t < n; t++)
        if (measured[t]) {
            double d = x[t] - w.mean, since = time[t] - mean_time;
            w.square += d * d;
            w.cross += d * since;
            w.times += since * since;
        }
    return w;
}

static float narrowed(double x)
{
    return (float)(x > FLT_MAX ? FLT_MAX : x < -FLT_MAX ? -FLT_MAX : x);
}

/* values, measured: n_channels rows of steps, `row` elements apart.
 * time: of each of the `length` steps about their middle, in seconds; then their sum of squares.
 * out: float (n_windows, n_channels, 6).
 */
void cis490_statistics(const float *values, const uint8_t *measured, int64_t row,
                       int64_t n_channels, int64_t n_windows, int64_t length, int64_t stride,
                       const double *time, float *out)
{
    for (int64_t c = 0; c < n_channels; c++)
        for (int64_t k = 0; k < n_windows; k++) {
            const float *x = values + c * row + k * stride;
            const uint8_t *m = measured + c * row + k * stride;
            float *to = out + (k * n_channels + c) * N_STATISTICS;
            struct window w = memchr(m, 0, (size_t)length) ? of_part(x, m, time, length)
                                                           : of_whole(x, time, length);
            double spread = sqrt(w.square / (double)(w.count - 1));
            to[0] = w.count < 1 ? NAN : narrowed(w.mean);
            to[1] = w.count < 2 ? NAN : narrowed(spread);
            to[2] = w.count < 1 ? NAN : narrowed(w.low);
            to[3] = w.count < 1 ? NAN : narrowed(w.high);
            to[4] = w.count < 3 ? NAN : narrowed(w.cross / w.times);
            to[5] = (float)(1.0 - (double)w.count / (double)length);
        }
}
