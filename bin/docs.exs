# Checks that everything public is documented; builds the pages with ExDoc where it is installed.
#
#   mix run --no-start bin/docs.exs
#
# Fails when a public module, function, macro, callback or type has no documentation and no `@doc false`.
defmodule Tiebeam.DocsCheck do
  @moduledoc false

  def run do
    app = Mix.Project.config()[:app]
    Application.load(app)
    {:ok, modules} = :application.get_key(app, :modules)

    case Enum.flat_map(Enum.sort(modules), &undocumented/1) do
      [] -> Mix.shell().info("every public item of #{length(modules)} modules is documented")
      missing -> Mix.raise("without documentation:\n  " <> Enum.join(missing, "\n  "))
    end

    build()
  end

  defp undocumented(module) do
    case Code.fetch_docs(module) do
      {:docs_v1, _, _, _, :hidden, _, _} -> []
      {:docs_v1, _, _, _, :none, _, items} -> [inspect(module) | items(module, items)]
      {:docs_v1, _, _, _, %{}, _, items} -> items(module, items)
      {:error, reason} -> ["#{inspect(module)} (#{inspect(reason)})"]
    end
  end

  # What a behaviour or `use` defined for the module carries `:none` as well, but its callback is documented elsewhere.
  defp items(module, items) do
    callbacks =
      for behaviour <- behaviours(module), callback <- behaviour.behaviour_info(:callbacks), do: callback

    for {{kind, name, arity}, _, _, :none, _} <- items, {name, arity} not in callbacks do
      "#{inspect(module)}.#{name}/#{arity} (#{kind})"
    end
  end

  defp behaviours(module),
    do: Keyword.get_values(module.module_info(:attributes), :behaviour) |> List.flatten()

  # Debian packages ExDoc as plain beam files; a project may also have it as a dependency.
  defp build do
    if Code.ensure_loaded?(Mix.Tasks.Docs) do
      Mix.Task.run("docs")
    else
      Mix.shell().info("ExDoc is not installed: no pages were built")
    end
  end
end

Tiebeam.DocsCheck.run()
