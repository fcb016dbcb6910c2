"""The registry counts, merges the other process, and speaks Prometheus."""

from ocean_core.obs.catalog import METRICS
from ocean_core.obs.metrics import Histogram, Metric, MetricsRegistry


def registry() -> MetricsRegistry:
    return MetricsRegistry(
        [
            Metric("ocean_things_total", "counter", "Things.", ("kind",)),
            Metric("ocean_depth", "gauge", "Depth."),
            Metric("ocean_time_seconds", "histogram", "Time.", ("route",)),
        ]
    )


def test_counters_gauges_and_histograms_render_as_prometheus_text() -> None:
    metrics = registry()
    metrics.add("ocean_things_total", 2, 'a"b\\c\nd')
    metrics.set("ocean_depth", 1.5)
    metrics.histogram("ocean_time_seconds", "x").observe(0.003)
    text = metrics.render()
    assert "# TYPE ocean_things_total counter" in text
    assert 'ocean_things_total{kind="a\\"b\\\\c\\nd"} 2\n' in text
    assert "ocean_depth 1.5\n" in text
    assert 'ocean_time_seconds_bucket{route="x",le="0.0025"} 0\n' in text
    assert 'ocean_time_seconds_bucket{route="x",le="0.005"} 1\n' in text
    assert 'ocean_time_seconds_bucket{route="x",le="+Inf"} 1\n' in text
    assert 'ocean_time_seconds_count{route="x"} 1\n' in text
    assert 'ocean_time_seconds_sum{route="x"} 0.003\n' in text


def test_samples_of_the_other_process_replace_its_former_ones() -> None:
    mine, other = registry(), registry()
    other.add("ocean_things_total", 3, "moved")
    mine.adopt(*other.samples())
    other.add("ocean_things_total", 1, "moved")
    mine.adopt(*other.samples())
    mine.add("ocean_things_total", 1, "taken")
    assert mine.value("ocean_things_total", "moved") == 4
    assert mine.total("ocean_things_total") == 5
    assert 'ocean_things_total{kind="moved"} 4' in mine.render()


def test_a_quantile_is_the_bound_of_its_bucket() -> None:
    histogram = Histogram()
    assert histogram.quantile(0.5) is None
    for _ in range(99):
        histogram.observe(0.0002)
    histogram.observe(2.0)
    assert histogram.quantile(0.5) == 0.00025
    assert histogram.quantile(0.99) == 0.00025
    assert histogram.quantile(1.0) == 2.5


def test_the_first_design_documents_names_exist() -> None:
    names = {metric.name for metric in METRICS}
    assert names >= {
        "ocean_cpu_usage_percent",
        "ocean_memory_usage_bytes",
        "ocean_requests_total",
        "ocean_telemetry_ingested_total",
        "ocean_queries_processed_total",
        "ocean_request_duration_seconds",
        "ocean_database_query_duration_seconds",
        "ocean_errors_total",
        "ocean_database_errors_total",
    }
    assert len(names) == len(METRICS)
