from shop.http.service import ServiceApi
from shop.reports.controller import ReportController, ask_by_query, report_of_user
from shop.reports.files import ReportFiles
from shop.reports.reading import RunReader
from shop.reports.requests import RunDesk


def reports_api(desk: RunDesk, reader: RunReader, files: ReportFiles) -> ServiceApi:
    """The routes of reports."""
    return ServiceApi(
        [ReportController, ask_by_query, report_of_user],
        {"run_desk": desk, "run_reader": reader, "report_files": files},
        close=[desk.close, reader.close],
    )
