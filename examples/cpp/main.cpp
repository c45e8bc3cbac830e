// An inference loop in C++17 whose model writes its probabilities straight into the ring: no copy, no allocation, no system call.

#include <mlwatch.h>

#include <array>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <thread>

namespace {

constexpr std::uint32_t classes = 3, features = 4, most_rows = 16;
constexpr std::array<const char *, classes> class_names = {"setosa", "versicolor", "virginica"};
constexpr std::array<const char *, features> feature_names = {"sepal_length", "sepal_width", "petal_length", "petal_width"};

// A typical flower of each class, in cm.
constexpr float typical[classes][features] = {{5.0F, 3.4F, 1.5F, 0.2F}, {5.9F, 2.8F, 4.3F, 1.3F}, {6.6F, 3.0F, 5.6F, 2.0F}};

struct Close {
    void operator()(mlw_producer *p) const { mlw_close(p); }
};
using Producer = std::unique_ptr<mlw_producer, Close>;

// Empty when there can be no ring. A service goes on serving without one.
Producer open_producer(const char *dir)
{
    std::array<char, 256> error{};
    mlw_options options = mlw_options_init();
    options.model = "iris";
    options.n_classes = classes;
    options.n_features = features;
    options.class_names = class_names.data();
    options.feature_names = feature_names.data();
    options.dir = dir;
    options.error = error.data();
    options.error_size = error.size();
    mlw_producer *p = nullptr;
    if (mlw_open(&options, &p))
        std::fprintf(stderr, "not watched: %s\n", error.data());
    return Producer(p);
}

// Stands for the requests of clients.
class Requests {
public:
    std::uint32_t rows() { return std::uniform_int_distribution<std::uint32_t>(1, most_rows)(random); }

    void read(float *x, std::uint32_t rows)
    {
        for (std::uint32_t row = 0; row < rows; row++) {
            const float *flower = typical[species(random)];
            for (std::uint32_t j = 0; j < features; j++)
                *x++ = flower[j] + noise(random);
        }
    }

private:
    std::mt19937 random{std::random_device{}()};
    std::uniform_int_distribution<std::uint32_t> species{0, classes - 1};
    std::normal_distribution<float> noise{0.0F, 0.4F};
};

// Stands for the model: the nearer a class's typical flower, the likelier. It fills rows x classes floats, wherever they are.
void predict(const float *x, float *proba, std::uint32_t rows)
{
    for (std::uint32_t row = 0; row < rows; row++, x += features, proba += classes) {
        float sum = 0;
        for (std::uint32_t k = 0; k < classes; k++) {
            float distance = 0;
            for (std::uint32_t j = 0; j < features; j++)
                distance += (x[j] - typical[k][j]) * (x[j] - typical[k][j]);
            sum += proba[k] = std::exp(-2 * distance);
        }
        for (std::uint32_t k = 0; k < classes; k++)
            proba[k] /= sum;
    }
}

// Stands for the answer to the client.
void respond(const float *proba, std::uint32_t rows)
{
    static volatile float sink;
    for (std::uint32_t i = 0; i < rows * classes; i++)
        sink = proba[i];
    (void)sink;
}

// One request. The buffers lie in the ring, or, if it has no place for them (then the batch is counted as dropped), here.
void serve(mlw_producer *p, Requests &requests)
{
    std::array<float, most_rows * features> spare_x;
    std::array<float, most_rows * classes> spare_proba;
    mlw_reservation place = mlw_reservation_init();
    place.rows = requests.rows();
    place.sections = MLW_PROBA | MLW_FEATURES;
    const bool watched = p && mlw_reserve(p, &place) == 0;
    float *x = watched ? static_cast<float *>(place.features) : spare_x.data();
    float *proba = watched ? static_cast<float *>(place.proba) : spare_proba.data();

    requests.read(x, place.rows);
    predict(x, proba, place.rows);
    respond(proba, place.rows);
    if (watched)
        mlw_commit(p); // from here on the memory is the sidecar's: nothing above may be read any more
}

void print_counts(const mlw_producer *p)
{
    mlw_counts counts = mlw_counts_init();
    if (p && mlw_counters(p, &counts) == 0)
        std::printf("%s: %llu rows written, %llu dropped\n", mlw_path(p), static_cast<unsigned long long>(counts.rows),
                    static_cast<unsigned long long>(counts.dropped_rows));
}

} // namespace

// Usage: iris [seconds [ring directory]]
int main(int argc, char **argv)
{
    using Clock = std::chrono::steady_clock;
    const double seconds = argc > 1 ? std::atof(argv[1]) : 10;
    const Producer p = open_producer(argc > 2 ? argv[2] : nullptr);
    Requests requests;
    for (const auto end = Clock::now() + std::chrono::duration<double>(seconds); Clock::now() < end;) {
        serve(p.get(), requests);
        std::this_thread::sleep_for(std::chrono::milliseconds(1)); // the load of a service, not a need of mlwatch
    }
    print_counts(p.get());
    return p ? EXIT_SUCCESS : EXIT_FAILURE;
}
