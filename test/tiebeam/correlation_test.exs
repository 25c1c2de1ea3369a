defmodule Tiebeam.CorrelationTest do
  use ExUnit.Case, async: true
  doctest Tiebeam.Correlation

  import ExUnit.CaptureLog

  alias Tiebeam.Correlation

  defmodule Stock do
    @moduledoc false
    use GenServer
    require Logger

    @impl true
    def init(next), do: {:ok, next}

    @impl true
    def handle_call(message, _from, next) do
      Correlation.unwrap(message, fn request ->
        Logger.info("asked for #{inspect(request)}")
        further = if next, do: GenServer.call(next, Correlation.wrap(request)), else: []
        {:reply, [Correlation.id() | further], next}
      end)
    end
  end

  test "an id goes along from process to process, and into the log" do
    {:ok, second} = GenServer.start_link(Stock, nil)
    {:ok, first} = GenServer.start_link(Stock, second)
    id = Correlation.begin()

    log =
      capture_log([metadata: [:correlation_id], format: "$metadata$message\n"], fn ->
        assert GenServer.call(first, Correlation.wrap(:tea)) == [id, id]
        # It was that of one message.
        assert GenServer.call(first, :coffee) == [nil, nil]
      end)

    assert length(String.split(log, "correlation_id=#{id} asked for :tea")) == 3
    refute log =~ "correlation_id=#{id} asked for :coffee"
  end

  test "the id from before is back afterwards, also after a failure" do
    Correlation.begin("mine")
    wrapped = {:"$tiebeam_correlated", "theirs", :message}
    assert Correlation.unwrap(wrapped, fn :message -> Correlation.id() end) == "theirs"
    catch_throw(Correlation.unwrap(wrapped, &throw/1))
    assert Correlation.id() == "mine"
  end

  test "an id that is none is left out" do
    for id <- ["", 17, <<255>>, String.duplicate("a", 65)] do
      assert Correlation.unwrap({:"$tiebeam_correlated", id, :message}, &{Correlation.id(), &1}) ==
               {nil, :message}

      assert_raise ArgumentError, fn -> Correlation.begin(id) end
    end

    Correlation.begin(nil)
    assert Correlation.wrap(:message) == :message
  end
end
